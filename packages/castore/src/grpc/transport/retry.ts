import { setTimeout as delay } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { ExponentialBackoff } from "cockatiel";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { CastoreError } from "../../model/errors.ts";
import { ATTEMPTS } from "../../policy/retry.ts";
import type { Channel } from "./channel.ts";
import { RpcError } from "./rpc-error.ts";

/** Pauses between attempts, in milliseconds: they grow, with jitter so that many clients do not come at once. */
const PAUSES = new ExponentialBackoff({ initialDelay: 50, maxDelay: 2_000 });

/** A wait that takes longer is told, in milliseconds. */
const TOLD_AFTER_MS = 1_000;

/**
 * Decides how often a call is made again that fails with `unavailable`. A server that cannot be reached is waited for
 * as long as the channel says, as it may restart; one that was never reached is not, as its address may be wrong. One
 * that answers so itself, because something behind it cannot be reached, is asked four times: it has waited already.
 */
export class Retries {
  readonly #channel: Channel;
  readonly #signal: AbortSignal | undefined;
  #pause = PAUSES.next();
  /** When the first of the failures in a row was; `undefined` if there was none. */
  #failedMs: number | undefined;
  /** How many of them the server itself answered with. */
  #answers = 0;

  constructor(channel: Channel, options?: AbortOptions) {
    this.#channel = channel;
    this.#signal = options?.signal;
  }

  /** Starts to count anew, when the server has sent something. */
  reset(): void {
    if (this.#failedMs === undefined) return;
    this.#failedMs = undefined;
    this.#answers = 0;
    this.#pause = PAUSES.next();
  }

  /** Waits before the next attempt; rejects with `error` if there is to be none. */
  async pause(error: unknown): Promise<void> {
    const { retryMs, connections } = this.#channel;
    this.#failedMs ??= performance.now();
    const left = this.#failedMs + retryMs - performance.now();
    if (connections === 0 || left <= 0 || this.#signal?.aborted) throw error;
    if (!isUnavailable(error)) throw error;
    if (isAnswer(error) && ++this.#answers === ATTEMPTS) throw error;
    if (performance.now() - this.#failedMs > TOLD_AFTER_MS) {
      this.#channel.tellWait(RpcError.from(error).rawMessage);
    }
    const { duration } = this.#pause;
    this.#pause = this.#pause.next(undefined);
    await delay(Math.min(duration, left), undefined, { signal: this.#signal }).catch(() => {
      throw error; // cancelled, which whoever cancels can tell
    });
  }
}

/** Makes a call until it succeeds, or fails otherwise than because the server cannot be reached. */
export async function withRetries<T>(
  channel: Channel,
  call: () => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  const retries = new Retries(channel, options);
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await retries.pause(error);
    }
  }
}

function isUnavailable(error: unknown): boolean {
  if (error instanceof CastoreError) return error.code === "unavailable";
  return RpcError.from(error).code === Code.Unavailable;
}

function isAnswer(error: unknown): boolean {
  const source = error instanceof CastoreError ? error.cause : error;
  return source instanceof RpcError && source.isAnswer;
}
