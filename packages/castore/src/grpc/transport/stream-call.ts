import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import {
  create,
  type DescMethod,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { MAX_MESSAGE_BYTES } from "../../model/limits.ts";
import { answerError, statusError } from "./call-status.ts";
import type { Channel } from "./channel.ts";
import { dataIn, frameMessage, parseMessage } from "./frames.ts";
import { MessageReader } from "./message-reader.ts";
import { Retries, withRetries } from "./retry.ts";
import { RpcError } from "./rpc-error.ts";
import { RpcSpan } from "./rpc-span.ts";
import { UnsentBytes } from "./unsent-bytes.ts";

/** Maximum number of unsent bytes of a request. */
const UNSENT_BYTES = 2 * 1024 * 1024;

/** Largest message that is taken: a directory that is as long as a message may be, as a field of another message or two. */
const MAX_RESPONSE_BYTES = MAX_MESSAGE_BYTES + 16;

/**
 * A gRPC call on an HTTP/2 stream. Connect takes several times as long, and may wait for ever if the server sends
 * GOAWAY and then drops the connection.
 *
 * When a call is cancelled, Node.js ends its request before it resets the stream. So the last byte is withheld until
 * the request is ended: a request that was cancelled is never complete.
 */
export class StreamCall<Method extends DescMethod> {
  readonly #method: Method;
  readonly #stream: ClientHttp2Stream;
  readonly #reader: MessageReader;
  readonly #signal: AbortSignal | undefined;
  readonly #span: RpcSpan | undefined;
  readonly #unsent: UnsentBytes;
  /** The withheld last byte of the request so far, and what to free once it is sent. */
  #kept: { readonly last: Uint8Array; readonly frees: readonly Uint8Array[] } | undefined;
  #headers: IncomingHttpHeaders | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  #error: unknown;
  #cancelled = false;

  private constructor(
    method: Method,
    stream: ClientHttp2Stream,
    span: RpcSpan | undefined,
    options: StreamCallOptions = {},
  ) {
    this.#method = method;
    this.#stream = stream;
    this.#span = span;
    this.#signal = options.signal;
    this.#unsent = new UnsentBytes(stream);
    this.#reader = new MessageReader(stream, {
      maxBytes: MAX_RESPONSE_BYTES,
      dataOf: options.asData ? (message) => dataIn(method.output, message) : undefined,
    });
    stream.once("response", (headers) => {
      this.#headers = headers;
      const refusal = answerError(headers);
      if (refusal !== undefined) this.#end(refusal); // its body is not gRPC
    });
    stream.once("trailers", (trailers) => {
      this.#trailers = trailers;
    });
    stream.once("end", () => this.#unsent.giveUp()); // a server that has answered may stop reading
    stream.on("error", (error) => {
      this.#error ??= error;
    });
    stream.once("close", () => this.#onClose());
    if (this.#signal?.aborted) this.cancel();
    else this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /**
   * Starts a call. Errors, here and later, are RpcErrors.
   *
   * @param options.signal cancels the call
   */
  static async begin<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    options?: StreamCallOptions,
  ): Promise<StreamCall<Method>> {
    const span = RpcSpan.client(method, channel.address);
    const path = `/${method.parent.typeName}/${method.name}`;
    const opening = channel.request(path, span?.headers());
    let stream: ClientHttp2Stream;
    try {
      stream = options?.signal ? await unlessAborted(opening, options.signal) : await opening;
    } catch (error) {
      const failure = unavailable(error);
      span?.end(failure);
      throw failure;
    }
    return new StreamCall(method, stream, span, options);
  }

  /**
   * Makes a unary call. It is retried while the server cannot be reached, see {@link Channel.retryMs}, so the method
   * has to be idempotent.
   */
  static unary<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    return StreamCall.unaryFramed(channel, method, frameRequest(method, request), options);
  }

  /**
   * Makes a unary call as {@link unary} does, of a request that the caller encodes.
   *
   * @param request the message with its prefix, in memory that nobody else has, which may be freed once the call has succeeded
   */
  static unaryFramed<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: Uint8Array,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    const answer = async (call: StreamCall<Method>) =>
      StreamCall.parse(method, await call.#response());
    return StreamCall.#unary(channel, method, request, answer, options);
  }

  /** Makes a unary call as {@link unary} does, and returns the response encoded. */
  static unaryEncoded<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<Uint8Array> {
    const framed = frameRequest(method, request);
    return StreamCall.#unary(channel, method, framed, (call) => call.#response(), options);
  }

  /**
   * Decodes a message of a response.
   *
   * @throws RpcError `internal` for bytes that are no such message
   */
  static parse<Method extends DescMethod>(
    { output }: Method,
    message: Uint8Array,
  ): MessageShape<Method["output"]> {
    try {
      return parseMessage(output, message) as MessageShape<Method["output"]>;
    } catch (error) {
      throw unreadable(error);
    }
  }

  static #unary<Method extends DescMethod, Response>(
    channel: Channel,
    method: Method,
    request: Uint8Array,
    answer: (call: StreamCall<Method>) => Promise<Response>,
    options?: AbortOptions,
  ): Promise<Response> {
    let calls = 0;
    const attempt = async () => {
      const call = await StreamCall.begin(channel, method, options);
      calls += 1;
      call.#endWith(request);
      const response = await answer(call);
      if (calls === 1) call.#unsent.free([request]); // the sockets of others may still refer to it
      return response;
    };
    return withRetries(channel, attempt, options);
  }

  /**
   * Makes a server-streaming call. It is cancelled when iterating ends early, and retried while the server cannot be
   * reached, until the first message arrives.
   */
  static async *serverStream<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): AsyncGenerator<MessageShape<Method["output"]>> {
    for await (const messages of StreamCall.encodedStream(channel, method, request, options)) {
      for (const message of messages) yield StreamCall.parse(method, message);
    }
  }

  /** Like {@link serverStream}, and gives the messages as they were encoded: all that have come by then at a time. */
  static async *encodedStream<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): AsyncGenerator<readonly Uint8Array[]> {
    const frame = frameRequest(method, request);
    const retries = new Retries(channel, options);
    for (let hasBegun = false; ; ) {
      let call: StreamCall<Method> | undefined;
      try {
        call = await StreamCall.begin(channel, method, options);
        call.#endWith(frame);
        for (;;) {
          const messages = await call.nextMessages();
          if (messages === undefined) return;
          hasBegun = true;
          yield messages;
        }
      } catch (error) {
        if (hasBegun) throw error;
        await retries.pause(error);
      } finally {
        call?.cancel();
      }
    }
  }

  /**
   * Makes a server-streaming call whose response is a stream of bytes, read by {@link nextData}. The caller cancels it
   * if it does not read to the end. It is not retried.
   */
  static async dataStream<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<StreamCall<Method>> {
    const call = await StreamCall.begin(channel, method, { ...options, asData: true });
    call.#endWith(frameRequest(method, request));
    return call;
  }

  /** Reads the next bytes of a {@link dataStream}; `undefined` at the end. */
  nextData(): Promise<Uint8Array | undefined> {
    return this.#next();
  }

  /**
   * Sends a framed message, which must not change from then on. Resolves when there is room for more.
   *
   * @param isOwned whether nobody else has it: its memory is freed once it is sent. Default: false
   */
  async send(frame: Uint8Array, isOwned = false): Promise<void> {
    if (this.#isOver()) throw this.#answeredEarly();
    this.#write(frame, isOwned);
    await this.#unsent.untilAtMost(UNSENT_BYTES);
  }

  /**
   * Sends a framed message whole, unless the call is over: for calls whose requests may be cut off after any message. The
   * message must not change from then on.
   */
  sendWhole(frame: Uint8Array): void {
    if (!this.#isOver()) this.#unsent.write(frame);
  }

  /** Ends the requests of a call, unless it is over. */
  endRequests(): void {
    if (!this.#stream.writableEnded) this.#endWith();
  }

  /** Reads the messages of the response that have come, encoded, at least one; `undefined` once the call has succeeded. */
  nextMessages(): Promise<readonly Uint8Array[] | undefined> {
    return this.#read((reader) => reader.nextWaiting());
  }

  /**
   * Ends the request, and returns the only message of the response.
   *
   * @param frame the last message of the request, framed. Default: none
   */
  async finish(frame?: Uint8Array): Promise<MessageShape<Method["output"]>> {
    this.#endWith(frame);
    return StreamCall.parse(this.#method, await this.#response());
  }

  /** Cancels the call, unless it is over. A server never takes an unfinished request for a complete one. */
  cancel(): void {
    this.#end(undefined);
  }

  /** @param reason the error for readers of the response. Default: the call was cancelled */
  #end(reason: RpcError | undefined): void {
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#unsent.giveUp(); // on a link that is stalled, the stream does not close before the link moves again
    if (this.#reader.isOver) return;
    this.#cancelled = reason === undefined;
    const failure = reason ?? new RpcError(Code.Canceled, "the call was cancelled");
    this.#span?.end(failure);
    this.#reader.fail(failure);
  }

  readonly #onAbort = (): void => this.cancel();

  #onClose(): void {
    this.#signal?.removeEventListener("abort", this.#onAbort);
    if (!this.#reader.isOver) this.#reader.fail(this.#cut());
    this.#span?.end(this.#failure()); // does nothing if the response has ended it
  }

  /** Writes the byte withheld before and the frame, and withholds its last byte. */
  #write(frame: Uint8Array, isOwned: boolean): void {
    const rest = frame.subarray(0, -1);
    const last = frame.subarray(-1);
    this.#stream.cork();
    this.#writeKept();
    this.#unsent.write(rest);
    this.#stream.uncork();
    this.#kept = { last, frees: isOwned ? [frame] : [] };
  }

  #writeKept(): void {
    if (this.#kept === undefined) return;
    this.#unsent.write(this.#kept.last);
    this.#unsent.free(this.#kept.frees);
  }

  /** Ends the request, with a framed message if one is given. */
  #endWith(frame?: Uint8Array): void {
    if (this.#isOver()) return; // the response has the reason
    this.#stream.cork();
    this.#writeKept();
    if (frame !== undefined) this.#unsent.write(frame);
    this.#stream.end();
    this.#stream.uncork();
  }

  /** Reads the only message of the response, encoded. */
  async #response(): Promise<Uint8Array> {
    try {
      const message = await this.#next();
      if (message === undefined) {
        throw new RpcError(Code.Internal, "the server sent no message");
      }
      if ((await this.#next()) !== undefined) {
        throw new RpcError(Code.Internal, "the server sent more than one message");
      }
      return message;
    } finally {
      this.cancel();
    }
  }

  /** Reads the next message of the response, encoded, or the next data; `undefined` once the call has succeeded. */
  #next(): Promise<Uint8Array | undefined> {
    return this.#read(async (reader) => (await reader.next()).value);
  }

  async #read<T>(read: (reader: MessageReader) => Promise<T | undefined>): Promise<T | undefined> {
    let value: T | undefined;
    try {
      value = await read(this.#reader);
    } catch (error) {
      // The status of a failed call says more than a malformed or truncated response.
      const failure = !this.#cancelled && this.#isOver() ? this.#failure() : undefined;
      const reason = failure ?? unreadable(error);
      this.#span?.end(RpcError.from(reason));
      throw reason;
    }
    if (value !== undefined) return value;
    const failure = this.#failure();
    this.#span?.end(failure);
    if (failure !== undefined) throw failure;
    return undefined;
  }

  #isOver(): boolean {
    const { closed, destroyed, readableEnded } = this.#stream;
    return this.#trailers !== undefined || closed || destroyed || readableEnded;
  }

  /** Returns the error of a call that is over; `undefined` if it has succeeded. */
  #failure(): RpcError | undefined {
    const status = statusError(this.#headers ?? {}, this.#trailers);
    return status === "none" ? this.#cut() : status;
  }

  #answeredEarly(): RpcError {
    const text = "the server answered before the request ended";
    return this.#failure() ?? new RpcError(Code.Internal, text);
  }

  /** Creates the error for a call that ended without a status. */
  #cut(): RpcError {
    return unavailable(this.#error ?? resetError(this.#stream.rstCode));
  }
}

/** Options of {@link StreamCall.begin}. */
export interface StreamCallOptions extends AbortOptions {
  /** Whether the response is read as a stream of bytes. Default: `false`, as messages. */
  asData?: boolean;
}

/** Encodes a request with its prefix. */
function frameRequest<Method extends DescMethod>(
  { input }: Method,
  message: MessageInitShape<Method["input"]>,
): Uint8Array {
  return frameMessage(input, create(input, message) as Message);
}

/** Waits for the stream of a request, unless the call is cancelled first. */
function unlessAborted(
  opening: Promise<ClientHttp2Stream>,
  signal: AbortSignal,
): Promise<ClientHttp2Stream> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(new RpcError(Code.Canceled, "the call was cancelled"));
      opening.then(
        (stream) => stream.close(constants.NGHTTP2_CANCEL),
        () => undefined, // the call is over
      );
    };
    signal.addEventListener("abort", onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    if (signal.aborted) onAbort();
  });
}

/** Converts the error of a malformed message: in a response it is an error of the server, not of the client. */
function unreadable(error: unknown): unknown {
  if (!(error instanceof RpcError) || error.code !== Code.InvalidArgument) return error;
  return new RpcError(Code.Internal, error.rawMessage, { cause: error });
}

/** Creates the error for a call whose connection or stream failed. */
function unavailable(cause: unknown): RpcError {
  if (cause instanceof RpcError) return cause;
  const { message } = cause as Error;
  return new RpcError(Code.Unavailable, message, { cause });
}

/** Status codes for the HTTP/2 error codes of a reset, other than `unavailable`. */
const RESET_CODES: Readonly<Record<number, Code>> = {
  [constants.NGHTTP2_PROTOCOL_ERROR]: Code.Internal,
  [constants.NGHTTP2_INTERNAL_ERROR]: Code.Internal,
  [constants.NGHTTP2_FLOW_CONTROL_ERROR]: Code.Internal,
  [constants.NGHTTP2_FRAME_SIZE_ERROR]: Code.Internal,
  [constants.NGHTTP2_COMPRESSION_ERROR]: Code.Internal,
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: Code.ResourceExhausted,
  [constants.NGHTTP2_INADEQUATE_SECURITY]: Code.PermissionDenied,
};

function resetError(code: number | undefined): RpcError {
  const text = `the connection ended before the call did (HTTP/2 code ${code ?? "none"})`;
  return new RpcError(RESET_CODES[code ?? 0] ?? Code.Unavailable, text);
}
