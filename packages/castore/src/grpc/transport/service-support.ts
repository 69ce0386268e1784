import { CastoreError } from "../../model/errors.ts";
import { ForeignAnswer } from "./call-status.ts";
import type { Channel } from "./channel.ts";
import { RpcError } from "./rpc-error.ts";

/** After this long a server that did not have a service is asked again. */
const FORGOTTEN_MS = 5 * 60_000;

/**
 * Remembers whether a server lacks a service that not every server has: until it is connected to again, as it may
 * have been replaced, and for five minutes at most, as what stands before it may lead to another.
 */
export class ServiceSupport {
  readonly #channel: Channel;
  #missing: { readonly connections: number; readonly sinceMs: number } | undefined;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Tells whether the server is known to lack the service. */
  isMissing(): boolean {
    if (this.#missing === undefined) return false;
    const { connections, sinceMs } = this.#missing;
    const isKnown = this.#channel.connections === connections;
    return isKnown && performance.now() - sinceMs < FORGOTTEN_MS;
  }

  /**
   * Tells whether a call failed because the server lacks the service, and remembers it. That a proxy answers 404 is
   * not remembered: it may be about to learn where the server is.
   */
  isAbsence(error: unknown): boolean {
    if (!(error instanceof CastoreError) || error.code !== "unimplemented") return false;
    const { cause } = error;
    const isForeign = cause instanceof RpcError && cause.cause instanceof ForeignAnswer;
    if (!isForeign) {
      this.#missing = { connections: this.#channel.connections, sinceMs: performance.now() };
    }
    return true;
  }
}
