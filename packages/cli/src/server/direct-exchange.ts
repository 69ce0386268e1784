import type {
  Http2ServerRequest,
  Http2ServerResponse,
  IncomingHttpHeaders,
  ServerHttp2Stream,
} from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "@tvix/castore";
import { type DirectMethod, readMessages } from "@tvix/castore/rpc";
import { cancelled, stopSender } from "./http2-stream.ts";
import type { CallLog } from "./request-log.ts";

/** The content types of gRPC with messages in Protocol Buffers. */
const CONTENT_TYPES: ReadonlySet<string | undefined> = new Set([
  "application/grpc",
  "application/grpc+proto",
]);

/** How many bytes of a response may wait for their turn to be sent. */
const UNSENT_BYTES = 2 * 1024 * 1024;

/** Whether a request is one that {@link DirectExchange} can answer: without compression and deadline. */
export function isDirect(headers: IncomingHttpHeaders): boolean {
  const encoding = headers["grpc-encoding"];
  return (
    headers[":method"] === "POST" &&
    CONTENT_TYPES.has(headers["content-type"]) &&
    (encoding === undefined || encoding === "identity") &&
    headers["grpc-timeout"] === undefined
  );
}

/** A gRPC call that is answered straight on its HTTP/2 stream. */
export class DirectExchange {
  readonly #stream: ServerHttp2Stream;
  readonly #response: Http2ServerResponse;
  readonly #contentType: string;
  readonly #log: CallLog;
  readonly #closed = new AbortController();
  #ended = false;

  constructor(request: Http2ServerRequest, response: Http2ServerResponse, log: CallLog) {
    const { stream } = request;
    this.#stream = stream;
    this.#response = response;
    this.#contentType = request.headers["content-type"]!;
    this.#log = log;
    stream.on("error", () => undefined); // it ends the stream, which is where it is dealt with
    stream.once("close", () => {
      const complete = this.#ended && !stream.aborted && stream.rstCode === 0;
      log.end(complete ? "complete" : "cut");
      if (!complete) this.#closed.abort(cancelled());
    });
  }

  /** Lets a method answer. */
  async run({ answer }: DirectMethod): Promise<void> {
    try {
      const requests = readMessages(this.#requestBody(), MAX_MESSAGE_BYTES);
      for await (const parts of answer(requests, this.#closed.signal)) {
        if (this.#closed.signal.aborted) return;
        if (!this.#send(parts)) await this.#drained();
      }
      this.#end(undefined);
    } catch (error) {
      this.#log.error ??= error;
      this.#end(error);
    }
  }

  /** Sends a message; gives whether there is room for more. */
  #send(parts: readonly Uint8Array[]): boolean {
    const stream = this.#stream;
    this.#begin();
    stream.cork();
    for (const part of parts) {
      this.#log.bytesOut += part.length;
      stream.write(part);
    }
    stream.uncork();
    return stream.writableLength < UNSENT_BYTES;
  }

  #begin(): void {
    if (this.#response.headersSent) return;
    this.#response.writeHead(200, { "content-type": this.#contentType });
  }

  #end(error: unknown): void {
    if (this.#closed.signal.aborted || this.#stream.destroyed) return;
    const { code, rawMessage } = error === undefined ? OK : toWire(error);
    this.#begin();
    this.#response.addTrailers({
      "grpc-status": String(code),
      ...(rawMessage !== "" && { "grpc-message": encodeURIComponent(rawMessage) }),
    });
    this.#log.answered(200, String(code));
    this.#ended = true;
    this.#response.end();
    if (!this.#stream.readableEnded) stopSender(this.#stream);
  }

  /** The body of the request. Throws where the request is cut off, which is not its end. */
  async *#requestBody(): AsyncIterable<Uint8Array> {
    try {
      for await (const chunk of this.#stream.iterator({ destroyOnReturn: false })) {
        this.#log.bytesIn += chunk.length;
        yield chunk;
      }
    } catch (error) {
      throw cancelled(error);
    }
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const { signal } = this.#closed;
      const done = () => {
        this.#stream.off("drain", done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#stream.on("drain", done);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}

const OK = { code: 0, rawMessage: "" };

function toWire(error: unknown): { code: number; rawMessage: string } {
  if (error instanceof ConnectError) return error;
  return { code: Code.Internal, rawMessage: "internal error" };
}
