import {
  type AbortOptions,
  CastoreError,
  COMPRESSIONS,
  type Compression,
  collectBytes,
  decompress,
  freeMemory,
} from "@tvix/castore";
import type { Exchange } from "../exchange.ts";
import { HttpError } from "../http-error.ts";

/** Bodies up to this many bytes are read as a whole: a stream of each of them would take longer than what is done with it. */
const SMALL_BYTES = 64 * 1024;

/** What a body is, for messages, and how long it may be. */
export interface BodyOptions {
  /** What is stored, in quotes. */
  readonly name: string;
  /** Longest body, before and after decoding, in bytes. */
  readonly maxBytes: number;
}

/**
 * Streams the body of a request as it was sent.
 *
 * @throws HttpError 413 for one that is too long: at once if it states its length, otherwise from iterating
 */
export function plainBody(
  exchange: Exchange,
  { name, maxBytes }: BodyOptions,
): AsyncGenerator<Uint8Array> {
  if (Number(exchange.header("content-length") ?? 0) > maxBytes) throw tooLong(name, maxBytes);
  return atMost(exchange.body(), { name, maxBytes });
}

/**
 * Streams the body of a request, decoded.
 *
 * @throws HttpError 413 as {@link plainBody}, 415 for an unknown Content-Encoding, from iterating 400 for a body that is
 *   not encoded that way
 */
export function decodedBody(exchange: Exchange, options: BodyOptions): AsyncGenerator<Uint8Array> {
  const encoding = exchange.header("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (encoding === "identity") return plainBody(exchange, options);
  const compression = encoding.replace(/^x-/, "") as Compression;
  if (!COMPRESSIONS.includes(compression)) {
    const expected = `a Content-Encoding of ${COMPRESSIONS.join(", ")}`;
    const found = JSON.stringify(encoding);
    throw new HttpError(415, `Cannot store ${options.name}: expected ${expected}, found ${found}`);
  }
  const { name } = options;
  const contents = decompressed(plainBody(exchange, options), compression, {
    name,
    signal: exchange.signal,
  });
  return atMost(contents, options);
}

/** Reads the body of a request to its end, decoded. Throws as {@link decodedBody} and iterating it do. */
export async function wholeBody(exchange: Exchange, options: BodyOptions): Promise<Buffer> {
  const isEncoded = exchange.header("content-encoding") !== undefined;
  const whole = isEncoded ? undefined : smallBody(exchange, options);
  if (whole !== undefined) return await whole;
  return Buffer.from((await collectBytes(decodedBody(exchange, options))).buffer);
}

/** Reads the body of a request as it was sent; `undefined` where it does not state a length, or that is not small. */
export function smallBody(
  exchange: Exchange,
  { maxBytes }: Pick<BodyOptions, "maxBytes">,
): Promise<Buffer> | undefined {
  const length = Number(exchange.header("content-length"));
  return length <= Math.min(SMALL_BYTES, maxBytes) ? exchange.wholeBody(length) : undefined;
}

/** Passes bytes on, and throws HttpError 413 if there are more than `maxBytes`. */
export async function* atMost(
  stream: AsyncIterable<Uint8Array>,
  { name, maxBytes }: BodyOptions,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const data of stream) {
    size += data.length;
    if (size > maxBytes) throw tooLong(name, maxBytes);
    yield data;
  }
}

/** Decompresses what a client has sent, into pieces that are lent. Throws HttpError 400 for what is wrong with it. */
export async function* decompressed(
  stream: AsyncIterable<Uint8Array>,
  compression: Compression,
  options: AbortOptions & { readonly name: string },
): AsyncGenerator<Uint8Array> {
  let failure: { readonly error: unknown } | undefined;
  const watched = async function* () {
    try {
      yield* stream;
    } catch (error) {
      failure = { error };
      throw error;
    }
  };
  try {
    for await (const piece of decompress(watched(), compression, options)) {
      yield piece;
      freeMemory([piece]);
    }
  } catch (error) {
    const isTheirs = failure === undefined && error instanceof CastoreError;
    if (!isTheirs || error.code === "unimplemented") throw error;
    throw new HttpError(400, error.message, { cause: error });
  }
}

function tooLong(name: string, maxBytes: number): HttpError {
  return new HttpError(413, `Cannot store ${name}: expected at most ${maxBytes} bytes, found more`);
}
