import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { MAX_MESSAGE_BYTES } from "../../model/limits.ts";
import type { BudgetedCall, CallBudget, CallShare } from "./call-budget.ts";
import type { DirectMethod, ResponseSender } from "./direct-methods.ts";
import { cancelled, stopSender } from "./http2-stream.ts";
import { MessageReader } from "./message-reader.ts";
import { RpcError } from "./rpc-error.ts";
import { UnsentBytes } from "./unsent-bytes.ts";

/** The content types of gRPC with messages in Protocol Buffers. */
const CONTENT_TYPES: ReadonlySet<string | undefined> = new Set([
  "application/grpc",
  "application/grpc+proto",
]);

/** Maximum number of unsent bytes of a response. */
const UNSENT_BYTES = 1024 * 1024;

/** Observes a call, for logs and spans. */
export interface CallObserver {
  /** Number of bytes of the request body that have arrived. */
  bytesIn: number;
  /** Number of bytes of the response body that were written. */
  bytesOut: number;
  /** The error that the method threw, if any. */
  error: unknown;
  /** Called with the HTTP status and the gRPC status that are sent. */
  answered(httpStatus: number, grpcStatus: string): void;
  /** Called once, when the call is over. */
  end(outcome: "complete" | "cut"): void;
}

/**
 * Tells whether {@link answerDirectly} can answer a request: gRPC without compression and deadline. Connect handles all
 * others.
 */
export function isDirect(headers: IncomingHttpHeaders): boolean {
  const encoding = headers["grpc-encoding"];
  return (
    headers[":method"] === "POST" &&
    CONTENT_TYPES.has(headers["content-type"]) &&
    (encoding === undefined || encoding === "identity") &&
    headers["grpc-timeout"] === undefined
  );
}

/**
 * Answers a gRPC call on its HTTP/2 stream. Never rejects: an error is sent as a status, and passed to the observer.
 *
 * @param budget bounds the memory of all calls together
 */
export function answerDirectly(
  stream: ServerHttp2Stream,
  method: DirectMethod,
  observer: CallObserver,
  budget: CallBudget,
): Promise<void> {
  return new DirectExchange(stream, method, observer, budget).run();
}

class DirectExchange implements ResponseSender, BudgetedCall {
  readonly #stream: ServerHttp2Stream;
  readonly #method: DirectMethod;
  readonly #observer: CallObserver;
  readonly #requests: MessageReader;
  readonly #closed = new AbortController();
  readonly #unsent: UnsentBytes;
  readonly #share: CallShare;
  #status: Record<string, string> | undefined;

  constructor(
    stream: ServerHttp2Stream,
    method: DirectMethod,
    observer: CallObserver,
    budget: CallBudget,
  ) {
    this.#stream = stream;
    this.#method = method;
    this.#observer = observer;
    this.#unsent = new UnsentBytes(stream);
    this.#share = budget.open(this);
    this.#requests = new MessageReader(stream, {
      maxBytes: MAX_MESSAGE_BYTES,
      dataOf: method.dataOf,
      isWhole: () => !stream.aborted,
      isLazy: method.takesStream,
      // The request, its decoded form, and the response.
      reserve: (bytes) => this.reserve(bytes * 3),
    });
    stream.on("error", () => undefined); // the close of the stream handles it
    stream.once("close", () => this.#onClose());
  }

  async run(): Promise<void> {
    try {
      await this.#method.answer(this.#requests, this.#closed.signal, this);
      this.#end(OK);
    } catch (error) {
      this.#observer.error ??= error;
      this.#end(statusOf(error));
    }
  }

  send(...parts: readonly Uint8Array[]): Promise<void> | undefined {
    this.#begin();
    this.#stream.cork();
    for (const part of parts) {
      this.#observer.bytesOut += part.length;
      this.#unsent.write(part);
    }
    this.#stream.uncork();
    return this.#unsent.untilAtMost(UNSENT_BYTES);
  }

  free(memory: readonly Uint8Array[]): void {
    this.#unsent.free(memory);
  }

  reserve(bytes: number): Promise<void> {
    return this.#share.reserve(bytes, this.#closed.signal);
  }

  progress(): number | undefined {
    const waitsForClient = this.#unsent.bytes > 0 || this.#requests.isAwaited;
    const sent = this.#observer.bytesOut - this.#unsent.bytes;
    return waitsForClient ? this.#requests.bytes + sent : undefined;
  }

  endStalled(): void {
    if (this.#unsent.bytes > 0) this.#stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    else this.#requests.fail(new RpcError(Code.ResourceExhausted, STALLED));
  }

  #begin(): void {
    const stream = this.#stream;
    this.#closed.signal.throwIfAborted();
    if (stream.headersSent) return;
    stream.respond(RESPONSE_HEADERS, { waitForTrailers: true });
    stream.once("wantTrailers", () => {
      if (!stream.closed) stream.sendTrailers(this.#status!);
    });
  }

  #end(status: Record<string, string>): void {
    const stream = this.#stream;
    if (stream.closed || stream.destroyed) return;
    this.#status = status;
    this.#observer.answered(200, status["grpc-status"]!);
    this.#begin();
    stream.end();
    if (!this.#requests.ended) stopSender(stream);
  }

  #onClose(): void {
    const stream = this.#stream;
    this.#share.release();
    this.#observer.bytesIn = this.#requests.bytes;
    const complete = this.#status !== undefined && !stream.aborted && stream.rstCode === 0;
    this.#observer.end(complete ? "complete" : "cut");
    if (complete) return;
    const reason = cancelled();
    this.#closed.abort(reason);
    this.#requests.fail(reason);
  }
}

const STALLED = "the client sent nothing for too long while other calls waited for room";
const RESPONSE_HEADERS = { ":status": 200, "content-type": "application/grpc+proto" };
const OK: Record<string, string> = { "grpc-status": "0" };

function statusOf(error: unknown): Record<string, string> {
  const { code, rawMessage } =
    error instanceof ConnectError ? error : new RpcError(Code.Internal, "internal error");
  return {
    "grpc-status": String(code),
    "grpc-message": encodeURIComponent(rawMessage.toWellFormed()),
  };
}
