import { fromConnectError } from "../rpc/connect-error.ts";

/** A call that takes messages one after the other and answers once. */
export type UploadCall<Message, Response> = (
  messages: AsyncIterable<Message>,
  options: { signal: AbortSignal },
) => Promise<Response>;

/**
 * An upload that is fed message by message. The call starts with the first message that is sent and
 * takes the next one only when there is room for it.
 *
 * Ending a call without its last message looks, on the wire, like a complete one for an instant. So the
 * message given last is kept back until {@link Upload.finish}: what was not finished is never complete.
 */
export class Upload<Message, Response> {
  readonly #call: UploadCall<Message, Response>;
  readonly #action: string;
  readonly #callerSignal: AbortSignal | undefined;
  readonly #cancel = new AbortController();
  #response: Promise<Response> | undefined;
  #failure: { error: unknown } | undefined;
  /** Whether the server has answered, which it may do before it has taken everything. */
  #answered = false;
  #kept: { message: Message } | undefined;
  /** The message that the call takes next; `undefined` in it ends the stream. */
  #offered: { message: Message | undefined; taken: () => void } | undefined;
  #wakeCall: (() => void) | undefined;
  #wakeSender: (() => void) | undefined;

  /** @param action what is attempted and where, for messages */
  constructor(call: UploadCall<Message, Response>, action: string, signal?: AbortSignal) {
    this.#call = call;
    this.#action = action;
    this.#callerSignal = signal;
  }

  /** Resolves when there is room for another message. One call at a time. */
  async send(message: Message): Promise<void> {
    this.#throwIfEnded();
    const before = this.#kept;
    this.#kept = { message };
    if (before !== undefined) await this.#offer(before.message);
  }

  /** Sends what was kept back, ends the stream and resolves with the answer. */
  async finish(): Promise<Response> {
    this.#throwIfEnded();
    if (this.#kept !== undefined) await this.#offer(this.#kept.message);
    this.#kept = undefined;
    await this.#offer(undefined);
    return await this.#start();
  }

  /** Ends the call without its last message, so that the server stores nothing. */
  async cancel(reason: unknown): Promise<void> {
    this.#cancel.abort(reason);
    await this.#response?.catch(() => undefined);
  }

  #throwIfEnded(): void {
    this.#callerSignal?.throwIfAborted();
    this.#cancel.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #start(): Promise<Response> {
    if (this.#response === undefined) {
      const { signal: own } = this.#cancel;
      const signal = this.#callerSignal ? AbortSignal.any([this.#callerSignal, own]) : own;
      this.#response = this.#call(this.#messages(), { signal }).catch((error) => {
        throw fromConnectError(error, this.#action, this.#callerSignal);
      });
      const settle = (failure?: { error: unknown }) => {
        this.#failure = failure;
        this.#answered = true;
        this.#wakeSender?.();
      };
      this.#response.then(
        () => settle(),
        (error) => settle({ error }), // thrown by the next send or finish
      );
    }
    return this.#response;
  }

  /** Resolves when the call took the message, `undefined` being the end of the stream. */
  async #offer(message: Message | undefined): Promise<void> {
    void this.#start();
    if (!this.#answered) {
      await new Promise<void>((resolve) => {
        this.#wakeSender = resolve;
        this.#offered = { message, taken: resolve };
        this.#wakeCall?.();
      });
      this.#wakeSender = undefined;
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async *#messages(): AsyncGenerator<Message> {
    for (;;) {
      while (this.#offered === undefined) {
        await new Promise<void>((resolve) => {
          this.#wakeCall = resolve;
        });
      }
      const { message, taken } = this.#offered;
      this.#offered = undefined;
      taken();
      if (message === undefined) return;
      yield message;
    }
  }
}
