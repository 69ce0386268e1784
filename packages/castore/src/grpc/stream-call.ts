import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import {
  create,
  type DescMethod,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../limits.ts";
import type { AbortOptions } from "../options.ts";
import { frameMessage, parseMessage, readMessages } from "../rpc/frames.ts";
import type { Channel } from "./channel.ts";

/** How many bytes of a request may wait for their turn to be sent. */
const UNSENT_BYTES = 2 * 1024 * 1024;

/** HTTP statuses of what stands before a server, and the codes that gRPC gives them. */
const HTTP_CODES: Readonly<Record<number, Code>> = {
  400: Code.Internal,
  401: Code.Unauthenticated,
  403: Code.PermissionDenied,
  404: Code.Unimplemented,
  429: Code.Unavailable,
  502: Code.Unavailable,
  503: Code.Unavailable,
  504: Code.Unavailable,
};

/**
 * A call of gRPC straight on an HTTP/2 stream. Connect, made for comfort and every protocol, takes several
 * times as long, and may wait for ever for a server that announced its end and then dropped the connection.
 */
export class StreamCall<Method extends DescMethod> {
  readonly #method: Method;
  readonly #stream: ClientHttp2Stream;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => this.cancel();
  #headers: IncomingHttpHeaders | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  #error: unknown;

  private constructor(method: Method, stream: ClientHttp2Stream, signal: AbortSignal | undefined) {
    this.#method = method;
    this.#stream = stream;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    stream.once("response", (headers) => {
      this.#headers = headers;
    });
    stream.once("trailers", (trailers) => {
      this.#trailers = trailers;
    });
    stream.on("error", (error) => {
      this.#error ??= error;
    });
    stream.once("close", () => signal?.removeEventListener("abort", this.#onAbort));
    if (signal?.aborted) this.cancel();
  }

  /**
   * Begins a call. Errors, here and later, are ConnectErrors.
   *
   * @param options.signal cancels the call
   */
  static async begin<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    options?: AbortOptions,
  ): Promise<StreamCall<Method>> {
    try {
      const stream = await channel.request(`/${method.parent.typeName}/${method.name}`);
      return new StreamCall(method, stream, options?.signal);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Makes a call that has one request and one response. */
  static async unary<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    const call = await StreamCall.begin(channel, method, options);
    await call.send(request);
    return await call.finish();
  }

  /** Makes a call that has one request. When iterating ends early, it is cancelled. */
  static async *serverStream<Method extends DescMethod>(
    channel: Channel,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): AsyncGenerator<MessageShape<Method["output"]>> {
    const call = await StreamCall.begin(channel, method, options);
    await call.send(request);
    call.end();
    yield* call.receive();
  }

  /** Sends a message, whose bytes are lent until it resolves. That is when there is room for more. */
  async send(message: MessageInitShape<Method["input"]>): Promise<void> {
    const stream = this.#stream;
    const { input } = this.#method;
    if (this.#isOver()) await this.#throwStatus();
    // A copy of what is lent: it may be sent much later.
    stream.write(Buffer.concat(frameMessage(input, create(input, message) as Message)));
    if (stream.writableLength <= UNSENT_BYTES) return;
    await new Promise<void>((resolve) => {
      const events = ["drain", "trailers", "close"] as const;
      const done = () => {
        for (const event of events) stream.off(event, done);
        resolve();
      };
      for (const event of events) stream.on(event, done);
      if (this.#isOver()) done();
    });
    if (this.#isOver()) await this.#throwStatus();
  }

  /** Ends the request. */
  end(): void {
    this.#stream.end();
  }

  /** Ends the request, and resolves with the only message of the response. */
  async finish(): Promise<MessageShape<Method["output"]>> {
    this.end();
    let response: MessageShape<Method["output"]> | undefined;
    for await (const message of this.receive()) response ??= message;
    if (response !== undefined) return response;
    throw new ConnectError("the server sent no message", Code.Internal);
  }

  /** The messages of the response. When iterating ends early, the call is cancelled. */
  async *receive(): AsyncGenerator<MessageShape<Method["output"]>> {
    const { output } = this.#method;
    try {
      const chunks = this.#stream.iterator({ destroyOnReturn: false });
      for await (const bytes of readMessages(chunks, MAX_MESSAGE_BYTES)) {
        yield parseMessage(output, bytes) as MessageShape<Method["output"]>;
      }
      await this.#expectOk();
    } catch (error) {
      if (error instanceof ConnectError) throw error;
      await this.#expectOk();
      throw unavailable(error);
    } finally {
      this.cancel();
    }
  }

  /** Ends the call, unless it is over. A request that was not ended is never taken for a whole one. */
  cancel(): void {
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #isOver(): boolean {
    return this.#trailers !== undefined || this.#stream.closed || this.#stream.destroyed;
  }

  /** For a call that is over before the request was sent: throws what the server said. */
  async #throwStatus(): Promise<never> {
    await this.#expectOk();
    throw new ConnectError("the server answered before the request ended", Code.Internal);
  }

  /** Waits for the status of the call, and throws it unless it is OK. */
  async #expectOk(): Promise<void> {
    const stream = this.#stream;
    const inHeaders = this.#headers?.["grpc-status"] !== undefined;
    if (this.#trailers === undefined && !inHeaders && !stream.closed && !stream.destroyed) {
      await new Promise<void>((resolve) => {
        stream.once("trailers", () => resolve());
        stream.once("close", () => resolve());
      });
    }
    const found = this.#trailers ?? this.#headers ?? {};
    const status = found["grpc-status"];
    if (status === "0") return;
    if (status !== undefined) {
      throw new ConnectError(decodeMessage(found["grpc-message"]), Number(status));
    }
    const httpStatus = Number(this.#headers?.[":status"] ?? 200);
    if (httpStatus !== 200) {
      const code = HTTP_CODES[httpStatus] ?? Code.Unknown;
      throw new ConnectError(`the server answered with HTTP status ${httpStatus}`, code);
    }
    throw unavailable(this.#error ?? resetError(stream.rstCode));
  }
}

/** The error for a call that ended without a status, because the connection or the stream did. */
function unavailable(cause: unknown): ConnectError {
  if (cause instanceof ConnectError) return cause;
  const { message } = cause as Error;
  return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
}

function resetError(code: number | undefined): Error {
  return new Error(`the connection ended before the call did (HTTP/2 code ${code ?? "none"})`);
}

function decodeMessage(text: string | string[] | undefined): string {
  const encoded = String(text ?? "");
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded; // shown as it is
  }
}
