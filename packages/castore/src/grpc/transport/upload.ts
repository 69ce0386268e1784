import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { Channel } from "./channel.ts";
import { fromConnectError } from "./connect-error.ts";
import { StreamCall } from "./stream-call.ts";

/** A call that takes messages one after the other and answers once, begun when it has something to send. */
export class Upload<Method extends DescMethod> {
  readonly #channel: Channel;
  readonly #method: Method;
  readonly #action: string;
  readonly #signal: AbortSignal | undefined;
  #call: Promise<StreamCall<Method>> | undefined;
  #failure: { error: unknown } | undefined;

  /** @param action what is attempted and where, for messages */
  constructor(channel: Channel, method: Method, action: string, options?: AbortOptions) {
    this.#channel = channel;
    this.#method = method;
    this.#action = action;
    this.#signal = options?.signal;
  }

  /**
   * Sends a message, whose bytes are lent until it resolves. That is when there is room for more. One call
   * at a time.
   *
   * @throws CastoreError by cause, the same from then on
   */
  async send(message: MessageInitShape<Method["input"]>): Promise<void> {
    await this.#try((call) => call.send(message));
  }

  /** Like {@link send}, for a message that is nothing but data, of at least one byte. */
  async sendData(parts: readonly Uint8Array[]): Promise<void> {
    await this.#try((call) => call.sendData(parts));
  }

  /** Ends the stream and resolves with the answer. */
  async finish(): Promise<MessageShape<Method["output"]>> {
    return await this.#try((call) => call.finish());
  }

  /** Like {@link finish}, with a last message that is nothing but data, of at least one byte. */
  async finishWithData(parts: readonly Uint8Array[]): Promise<MessageShape<Method["output"]>> {
    return await this.#try((call) => call.finishWithData(parts));
  }

  /** Ends the call without an end of its stream, so that the server stores nothing. */
  async cancel(): Promise<void> {
    await this.#call?.then(
      (call) => call.cancel(),
      () => undefined, // it was never begun
    );
  }

  /** Throws the reason if it was cancelled by its signal, the error if it has failed. */
  throwIfOver(): void {
    this.#signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #try<T>(action: (call: StreamCall<Method>) => Promise<T>): Promise<T> {
    this.throwIfOver();
    try {
      this.#call ??= StreamCall.begin(this.#channel, this.#method, { signal: this.#signal });
      return await action(await this.#call);
    } catch (error) {
      this.#failure = { error: fromConnectError(error, this.#action, this.#signal) };
      throw this.#failure.error;
    }
  }
}
