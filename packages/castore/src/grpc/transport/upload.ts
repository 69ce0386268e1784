import type { DescMethod, MessageShape } from "@bufbuild/protobuf";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { Channel } from "./channel.ts";
import { Retries } from "./retry.ts";
import { fromRpcError } from "./rpc-error.ts";
import { StreamCall } from "./stream-call.ts";

/** Options of an {@link Upload}. */
export interface UploadOptions extends AbortOptions {
  /**
   * Number of bytes kept for a retry while the server cannot be reached. A longer upload fails then.
   */
  keptBytes: number;
}

/** A client-streaming call, started by the first message. */
export class Upload<Method extends DescMethod> {
  readonly #channel: Channel;
  readonly #method: Method;
  readonly #action: string;
  readonly #options: UploadOptions;
  readonly #retries: Retries;
  #call: Promise<StreamCall<Method>> | undefined;
  /** The messages sent so far; `undefined` once they exceed the limit. */
  #kept: Uint8Array[] | undefined = [];
  #keptBytes = 0;
  #isCancelled = false;
  #failure: { error: unknown } | undefined;

  /** @param action the operation and the server, for error messages */
  constructor(channel: Channel, method: Method, action: string, options: UploadOptions) {
    this.#channel = channel;
    this.#method = method;
    this.#action = action;
    this.#options = options;
    this.#retries = new Retries(channel, options);
  }

  /**
   * Sends a framed message that nobody else has. Resolves when there is room for more. One call at a time.
   *
   * @throws CastoreError by cause; later calls throw the same error
   */
  async send(frame: Uint8Array): Promise<void> {
    const isOwned = this.#kept === undefined; // it is not sent again
    await this.#try((call) => call.send(frame, isOwned));
    this.#keptBytes += frame.length;
    if (this.#keptBytes > this.#options.keptBytes) this.#kept = undefined;
    this.#kept?.push(frame);
  }

  /** Sends the last framed message, if any, ends the stream, and resolves with the response. */
  async finish(frame?: Uint8Array): Promise<MessageShape<Method["output"]>> {
    return await this.#try((call) => call.finish(frame));
  }

  /** Resets the stream without ending it, so that the server stores nothing. */
  async cancel(): Promise<void> {
    this.#isCancelled = true;
    this.#kept = undefined;
    await this.#call?.then(
      (call) => call.cancel(),
      () => undefined, // it was never started
    );
  }

  /** Throws the reason if the upload was cancelled by its signal, or the error if it has failed. */
  throwIfOver(): void {
    this.#options.signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #try<T>(action: (call: StreamCall<Method>) => Promise<T>): Promise<T> {
    this.throwIfOver();
    for (;;) {
      try {
        this.#call ??= this.#begin();
        return await action(await this.#call);
      } catch (error) {
        this.#call = undefined;
        try {
          if (this.#kept === undefined || this.#isCancelled) throw error;
          await this.#retries.pause(error);
        } catch (failure) {
          this.#kept = undefined;
          const { signal } = this.#options;
          this.#failure = { error: fromRpcError(failure, this.#action, signal) };
          throw this.#failure.error;
        }
      }
    }
  }

  /** Starts a call, and sends the kept messages again. */
  async #begin(): Promise<StreamCall<Method>> {
    const call = await StreamCall.begin(this.#channel, this.#method, this.#options);
    for (const frame of this.#kept ?? []) await call.send(frame);
    return call;
  }
}
