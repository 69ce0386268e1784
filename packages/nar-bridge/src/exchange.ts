import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { constants, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { stopSender } from "@tvix/castore/rpc";
import { parse as parseRange } from "range-parser";
import { gatheredBody } from "./gathered-body.ts";
import { answerTo, HttpError } from "./http-error.ts";
import { atEndOfTurn } from "./turn-end.ts";

/** A request over either version of HTTP. */
export type HttpRequest = IncomingMessage | Http2ServerRequest;

/** The response to an {@link HttpRequest}. */
export type HttpResponse = ServerResponse | Http2ServerResponse;

/** Headers of an answer, names in lower case. */
export type Headers = Readonly<Record<string, string | number>>;

/** How a request was answered, for a log. */
export interface Answered {
  readonly method: string;
  /** The request target: path and query. */
  readonly target: string;
  /** Status of the answer; `undefined` where the client left before there was one. */
  readonly status: number | undefined;
  /** Whether the answer reached its end. */
  readonly complete: boolean;
  readonly durationMs: number;
  /** Bytes of the body that were read, and written. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Why it was refused, or broke off. */
  readonly error?: unknown;
}

/** A part of a body, in bytes. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** A text with the headers of the answer that it is, ready to be sent many times. Made by {@link textAnswer}. */
export interface TextAnswer {
  readonly text: string;
  /** `latin1` where that is the same bytes, which Node.js writes in one go. */
  readonly encoding: "latin1" | "utf8";
  /** Length in bytes. */
  readonly size: number;
  readonly headers: Headers;
}

/** Makes an answer of a text. */
export function textAnswer(text: string, headers: Headers): TextAnswer {
  const bytes = Buffer.from(text);
  // Decoded again, since V8 keeps a text that was put together as its pieces, and joins them whenever it is sent.
  return {
    text: bytes.toString(),
    encoding: bytes.length === text.length ? "latin1" : "utf8",
    size: bytes.length,
    headers: { ...headers, "content-length": bytes.length },
  };
}

/** A body whose length is known, of which any part can be read. */
export interface Content {
  /** Length in bytes. */
  readonly size: number;
  readonly headers: Headers;
  /** Names these very bytes, in quotes: a strong validator. */
  readonly etag: string;
  /**
   * Reads a part. A piece is left alone until the next one is asked for. What it throws breaks the connection: an answer
   * that has begun never ends cleanly.
   */
  read(range: ByteRange, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** How much of a body is discarded after the answer, in bytes, and for how long, in milliseconds. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;
const MAX_DISCARD_MS = 5_000;

const TEXT: Headers = { "content-type": "text/plain; charset=utf-8" };

/** What an {@link Exchange} is told of its request. */
interface ExchangeOptions {
  readonly client: string;
  readonly isWaiting: boolean;
  /** Called once for the request. Default: nothing is. */
  readonly onAnswered: ((answered: Answered, request: HttpRequest) => void) | undefined;
}

/** One request and the answer to it. */
export class Exchange {
  readonly #request: HttpRequest;
  readonly #response: ServerResponse;
  readonly #onAnswered: ExchangeOptions["onAnswered"];
  readonly #startedMs: number = performance.now();
  #left: AbortController | undefined;
  #status: number | undefined;
  #bytesIn = 0;
  #bytesOut = 0;
  #error: unknown;
  #isOver = false;
  /** Whether an answer is about to be sent. */
  #isQueued = false;
  /** Whether the client waits to be told to send the body. */
  #isWaiting: boolean;

  /** Whose limit of uploads the request counts for. */
  readonly client: string;

  constructor(request: HttpRequest, response: HttpResponse, options: ExchangeOptions) {
    this.#request = request;
    this.#isWaiting = options.isWaiting;
    this.client = options.client;
    // The two classes have the methods that are used here in common.
    this.#response = response as ServerResponse;
    this.#onAnswered = options.onAnswered;
  }

  /** The method of the request, such as `GET`. */
  get method(): string {
    return this.#request.method ?? "";
  }

  /** The request target: path and query. */
  get target(): string {
    return this.#request.url ?? "";
  }

  /** Whether an answer has begun. */
  get hasAnswer(): boolean {
    return this.#isOver || this.#isQueued || this.#response.headersSent;
  }

  /** Is aborted when the client leaves before the answer is complete. */
  get signal(): AbortSignal {
    if (this.#left === undefined) {
      const left = new AbortController();
      this.#left = left;
      const onClose = () => {
        if (this.#response.writableFinished) return;
        left.abort(new HttpError(499, "The client left before the answer was complete"));
        this.#error = left.signal.reason;
        this.#end(false);
      };
      if (this.#response.destroyed || this.#response.closed) onClose();
      else this.#response.once("close", onClose);
    }
    return this.#left.signal;
  }

  /** Returns a header of the request, its name in lower case; `undefined` if it was not sent. */
  header(name: string): string | undefined {
    const value = this.#request.headers[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  /**
   * Reads the body of the request, in pieces that are lent until the next one is asked for. Throws if it is cut off. To be
   * iterated once.
   */
  async *body(): AsyncGenerator<Uint8Array> {
    if (this.#isWaiting) this.#response.writeContinue();
    this.#isWaiting = false;
    try {
      for await (const piece of gatheredBody(this.#request)) {
        this.#bytesIn += piece.length;
        yield piece;
      }
    } catch (cause) {
      throw new HttpError(499, "The client left before the request was complete", { cause });
    }
  }

  /**
   * Reads all of a body, of `length` bytes as its header says. Throws if it is cut off. To be called instead of {@link body}.
   */
  wholeBody(length: number): Promise<Buffer> {
    if (this.#isWaiting) this.#response.writeContinue();
    this.#isWaiting = false;
    const request = this.#request;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const pieces: Buffer[] = [];
    const cut = (cause?: Error) =>
      new HttpError(499, "The client left before the request was complete", { cause });
    if (request.destroyed) return Promise.reject(cut());
    const onData = (piece: Buffer) => {
      this.#bytesIn += piece.length;
      pieces.push(piece);
    };
    const onEnd = () => resolve(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, length));
    const onCut = (cause?: Error) => reject(cut(cause));
    request.on("data", onData).once("end", onEnd).once("error", onCut).once("close", onCut);
    return promise.finally(() => {
      request.off("data", onData).off("end", onEnd).off("error", onCut).off("close", onCut);
    });
  }

  /** Answers with a line of text. */
  text(status: number, message: string, headers: Headers = {}): void {
    this.send(status, `${message}\n`, { ...TEXT, ...headers });
  }

  /** Answers that what the client pushed is stored. */
  created(): void {
    this.send(201, "", {});
  }

  /** Answers with a body that is in memory. */
  send(status: number, body: string | Uint8Array, headers: Headers): void {
    const size = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    this.#sendWhole(status, body, size, { ...headers, "content-length": size });
  }

  /** Answers with a text that is ready to be sent. */
  sendText({ text, encoding, size, headers }: TextAnswer): void {
    this.#sendWhole(200, text, size, headers, encoding);
  }

  /**
   * Answers with a body, or the part of it that the client asks for: conditions and one range are looked at. Bytes go
   * out as fast as the client takes them. Resolves when all are out, or the client has left.
   */
  async sendContent(content: Content): Promise<void> {
    const { size, etag } = content;
    const headers = { ...content.headers, etag, "accept-ranges": "bytes" };
    if (matches(this.header("if-none-match"), etag)) return this.#sendHead(304, headers);
    const range = this.#rangeOf(content);
    if (range === "unsatisfiable") {
      return this.text(416, `Cannot send that range: expected one within ${size} bytes`, {
        "content-range": `bytes */${size}`,
      });
    }
    const part = range ?? { offset: 0, length: size };
    const partHeaders = range && {
      "content-range": `bytes ${range.offset}-${range.offset + range.length - 1}/${size}`,
    };
    const all = { ...headers, ...partHeaders, "content-length": part.length };
    if (this.method === "HEAD") return this.#sendHead(range ? 206 : 200, all);
    const { signal } = this;
    if (signal.aborted) return;
    const sendHead = () => this.#writeHead(range ? 206 : 200, all);
    for await (const data of content.read(part, signal)) {
      signal.throwIfAborted();
      if (!this.#response.headersSent) sendHead(); // not before: what cannot be read at all gets an answer
      if (data.length > 0) await this.#write(data);
      signal.throwIfAborted();
    }
    if (part.length === 0) sendHead();
    if (this.#bytesOut !== part.length) {
      throw new Error(`expected ${part.length} bytes of ${this.target}, found ${this.#bytesOut}`);
    }
    this.#response.end();
    this.#end(true);
  }

  /** Answers with the reason of an error, or breaks off an answer that has begun. */
  fail(error: unknown): void {
    if (this.#isOver || this.#isQueued) return;
    if (!this.#response.headersSent) {
      const { status, message, headers } = answerTo(error);
      this.#error = error;
      this.text(status, message, headers);
      return;
    }
    this.#error = error;
    this.#end(false);
    const { stream } = this.#response as unknown as Partial<Http2ServerResponse>;
    if (stream) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    else this.#response.destroy();
  }

  /** Returns the part that the client asks for; `undefined` if it asks for all. */
  #rangeOf({ size, etag }: Content): ByteRange | "unsatisfiable" | undefined {
    const header = this.header("range");
    if (header === undefined) return undefined;
    const condition = this.header("if-range");
    if (condition !== undefined && condition !== etag) return undefined;
    const { code, type, ranges } = parseRange(size, header);
    // RFC 9110, section 14.2: what is malformed or not supported is ignored.
    if (type !== "bytes" || (code & 1) !== 0 || ranges.length > 1) return undefined;
    const [range] = ranges;
    if (range === undefined) return "unsatisfiable";
    return { offset: range.start, length: range.end - range.start + 1 };
  }

  #sendWhole(
    status: number,
    body: string | Uint8Array,
    size: number,
    headers: Headers,
    encoding: BufferEncoding = "utf8",
  ): void {
    if (this.#isOver || this.#isQueued) return;
    this.#isQueued = true;
    atEndOfTurn(() => {
      const response = this.#response;
      if (this.#isOver || response.destroyed) return;
      this.#writeHead(status, headers);
      if (this.method === "HEAD") response.end();
      else {
        this.#bytesOut = size;
        response.end(body, encoding);
      }
      this.#end(true);
    });
  }

  #sendHead(status: number, headers: Headers): void {
    if (this.#isOver || this.#response.destroyed) return;
    this.#writeHead(status, headers);
    this.#response.end();
    this.#end(true);
  }

  #writeHead(status: number, headers: Headers): void {
    this.#status = status;
    if (this.#isWaiting && this.#request.httpVersionMajor === 1) {
      // It may send the body all the same, which could not be told from the next request.
      this.#response.setHeader("connection", "close");
    }
    this.#response.writeHead(status, headers as OutgoingHttpHeaders);
  }

  /** Writes bytes. Resolves when they have been handed to the system; rejects if the client has left before. */
  #write(data: Uint8Array): Promise<void> {
    this.#bytesOut += data.length;
    return new Promise((resolve, reject) => {
      this.#response.write(data, (error) => {
        // Where a stream of HTTP/2 was reset, Node.js may still be about to send them.
        const response = this.#response as ServerResponse &
          Partial<Pick<Http2ServerResponse, "stream">>;
        if (!error && !response.destroyed && !response.stream?.destroyed) resolve();
        else reject(new HttpError(499, "The client left before the answer was complete"));
      });
    });
  }

  #end(complete: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (complete) discardBody(this.#request);
    const answered: Answered = {
      method: this.method,
      target: this.target,
      status: this.#status,
      complete,
      durationMs: performance.now() - this.#startedMs,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      error: this.#error,
    };
    this.#onAnswered?.(answered, this.#request);
  }
}

/**
 * Reads what is left of a body, so that the client gets the answer, and the connection can be used again. One who goes on
 * for too long loses it.
 */
function discardBody(request: HttpRequest): void {
  if (request.readableEnded || request.method === "GET" || request.method === "HEAD") return;
  if ("stream" in request) {
    stopSender(request.stream);
    return;
  }
  const timer = setTimeout(() => request.destroy(), MAX_DISCARD_MS).unref();
  let left = MAX_DISCARDED_BYTES;
  request.once("close", () => clearTimeout(timer));
  request.on("error", () => undefined);
  request.on("data", (data) => {
    left -= data.length;
    if (left < 0) request.destroy();
  });
  request.resume(); // whoever has read it may have paused it
}

/** Whether a list of entity tags has one, or is `*`. */
function matches(list: string | undefined, etag: string): boolean {
  if (list === undefined) return false;
  return list.split(",").some((one) => {
    const tag = one.trim();
    return tag === "*" || tag === etag || tag === `W/${etag}`;
  });
}
