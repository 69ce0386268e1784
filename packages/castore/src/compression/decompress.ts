import type { Duplex } from "node:stream";
import { createBrotliDecompress, createGunzip, createZstdDecompress } from "node:zlib";
import { untilAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { asBuffer, concatBytes, copyBytes } from "../bytes/byte-string.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import { bunzip2 } from "./bunzip2.ts";
import { XzDictionaryError, XzScanner } from "./xz-scanner.ts";
import { zstdCodec } from "./zstd-codec.ts";
import { contentSizeOf, windowSizeOf } from "./zstd-frame.ts";

/** A format that {@link decompress} can read. */
export type Compression = "br" | "bzip2" | "gzip" | "xz" | "zstd";

/** Decompresses a stream, whose pieces are lent. */
type Decoder = (source: AsyncGenerator<Uint8Array>) => AsyncGenerator<Uint8Array>;

/** Length of the pieces that decoders of Node.js give, in bytes: for each of them, a thread is woken, which may take 0.2 ms. */
const PIECE_BYTES = 256 * 1024;

const DECODERS: Readonly<Record<Compression, Decoder>> = {
  br: (source) => through(source, createBrotliDecompress({ chunkSize: PIECE_BYTES })),
  bzip2: bunzip2,
  gzip: (source) => through(source, createGunzip({ chunkSize: PIECE_BYTES })),
  xz: unxz,
  zstd: unzstd,
};

/** Every {@link Compression}. */
export const COMPRESSIONS: readonly Compression[] = Object.keys(DECODERS) as Compression[];

/** Magics of the frames of zstd that a reader skips. */
const ZSTD_SKIPPABLE = Array.from({ length: 16 }, (_, i) =>
  Buffer.from([0x50 + i, 0x2a, 0x4d, 0x18]),
);

/** First bytes of each format. Brotli has none. */
const MAGICS: readonly (readonly [Exclude<Compression, "br">, Buffer])[] = [
  ["bzip2", Buffer.from("BZh")],
  ["gzip", Buffer.from([0x1f, 0x8b, 0x08])],
  ["xz", Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ["zstd", Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ...ZSTD_SKIPPABLE.map((magic) => ["zstd", magic] as const), // pzstd begins with one
];

/** Number of bytes that {@link compressionOf} looks at. */
export const MAGIC_LENGTH = 10;

/** Returns the format of a stream by its first bytes; `undefined` if it is none of those that have a magic. */
export function compressionOf(start: Uint8Array): Exclude<Compression, "br"> | undefined {
  const bytes = asBuffer(start);
  const found = MAGICS.find(([, magic]) => bytes.subarray(0, magic.length).equals(magic));
  // Text may begin with BZh, too. A digit and the magic of a block, or of the end, follow it in bzip2.
  if (found?.[0] === "bzip2" && !BZIP2_NEXT.includes(bytes.toString("hex", 4, 10)))
    return undefined;
  return found?.[0];
}

/**
 * Reads the first bytes of a stream and tells its format by them.
 *
 * @returns the format, as {@link compressionOf} tells it, and the stream from its first byte on. Ending that ends
 *   `stream`, whose pieces may be lent, if it was begun
 */
export async function detectCompression(stream: AsyncIterable<Uint8Array>): Promise<{
  compression: ReturnType<typeof compressionOf>;
  stream: AsyncGenerator<Uint8Array>;
}> {
  const pieces = stream[Symbol.asyncIterator]();
  let start = Buffer.alloc(0);
  while (start.length < MAGIC_LENGTH) {
    const { done, value } = await pieces.next();
    if (done) break;
    start = Buffer.concat([start, value]);
  }
  const whole = async function* () {
    try {
      yield start;
      for (let next = await pieces.next(); !next.done; next = await pieces.next()) yield next.value;
    } finally {
      await pieces.return?.();
    }
  };
  return { compression: compressionOf(start), stream: whole() };
}

/** The digits of pi, and of its square root. */
const BZIP2_NEXT = ["314159265359", "177245385090"];

/** Options of {@link decompress}. */
export interface DecompressOptions extends AbortOptions {
  /** What is decompressed, for messages, such as a path or URL in quotes. Default: nothing but the format is named. */
  name?: string | undefined;
}

/**
 * Decompresses a stream of one or more compressed streams in a row, off this thread and only as far as it is read.
 * The pieces of `stream` may be lent until the next one is asked for; the pieces that come out belong to the caller.
 * Ending early releases everything.
 *
 * Memory is bounded: some hundred kilobytes for gzip, 16 MiB for brotli, 8 MB for bzip2, and the window of zstd or the
 * dictionary of xz, of up to 128 MiB. So is the size of a piece, 256 KiB, whatever a stream expands to.
 *
 * Iterating throws CastoreError `data_loss` for what is not in that format, is damaged or breaks off;
 * `resource_exhausted` for a window or dictionary above the limit; `unimplemented` for a format whose library has no
 * build for this platform; whatever `stream` throws; `signal.reason` when cancelled, at once.
 */
export async function* decompress(
  stream: AsyncIterable<Uint8Array>,
  compression: Compression,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array> {
  const { signal, name } = options;
  signal?.throwIfAborted();
  const action = `Cannot decompress ${name === undefined ? compression : `${name} (${compression})`}`;
  let failure: { readonly error: unknown } | undefined;
  let bytes = 0;
  const source = (async function* () {
    try {
      for await (const data of untilAborted(stream, signal)) {
        bytes += data.length;
        yield data;
      }
      // Not every decoder refuses it, or even ends.
      if (bytes === 0) throw new CastoreError("data_loss", `${action}: it is empty`);
    } catch (error) {
      failure = { error };
      throw error;
    }
  })();
  try {
    yield* untilAborted(DECODERS[compression](source), signal);
  } catch (error) {
    signal?.throwIfAborted();
    if (failure !== undefined) throw failure.error;
    if (error instanceof CastoreError) throw error;
    const { code, reason } = faultOf(error as NodeJS.ErrnoException);
    throw new CastoreError(code, `${action}: ${reason}`, { cause: error });
  } finally {
    const ended = source.return(undefined);
    // While it waits for a stream that was cancelled, it ends by itself.
    if (signal?.aborted) ended.catch(() => undefined);
    else await ended;
  }
}

/** Codes of Node.js for what is wrong with a compressed stream, in words. */
const REASONS: Readonly<Record<string, string>> = {
  Z_BUF_ERROR: "it breaks off: expected the rest of a stream, found the end",
  ZSTD_error_checksum_wrong: "it is damaged: the checksum of a frame is wrong",
  ZSTD_error_corruption_detected: "it is damaged",
  ZSTD_error_prefix_unknown: "expected a frame, found something else",
};

/** What is wrong with a compressed stream, by what a decoder threw. */
function faultOf(error: NodeJS.ErrnoException): { code: ErrorCode; reason: string } {
  if (error.code === "ZSTD_error_frameParameter_windowTooLarge") {
    const reason =
      "expected a window of at most 128 MiB, found a larger one; compress it with --long=27 or less";
    return { code: "resource_exhausted", reason };
  }
  if (error instanceof XzDictionaryError)
    return { code: "resource_exhausted", reason: error.message };
  return { code: "data_loss", reason: REASONS[error.code ?? ""] ?? error.message };
}

/** Decompresses by a stream of Node.js, which works in other threads and stops while nobody reads. */
async function* through(
  source: AsyncGenerator<Uint8Array>,
  decoder: Duplex,
): AsyncGenerator<Uint8Array> {
  const feed = async () => {
    // Piece by piece: a pipeline would ask for more as long as there is room.
    for await (const data of source) await write(decoder, data);
    decoder.end();
  };
  const fed = feed();
  fed.catch((error) => decoder.destroy(error));
  yield* decoder as AsyncIterable<Uint8Array>;
  await fed;
}

/**
 * Limits of what the calling thread decompresses, in bytes compressed and decompressed: a few milliseconds of work. For
 * most of it, another thread would take longer to wake.
 */
const SMALL_BYTES = 32 * 1024;
const SMALL_CONTENTS = 256 * 1024;

/** Longest window of frames that a context of this thread decompresses, in bytes: that of level 19. */
const KEPT_WINDOW = 8 * 1024 * 1024;

/** Reads a stream until it is no longer small, and copies that. */
async function startOf(
  source: AsyncIterator<Uint8Array>,
): Promise<{ readonly start: Uint8Array; readonly isWhole: boolean }> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  while (length <= SMALL_BYTES) {
    const { done, value } = await source.next();
    if (done) return { start: concatBytes(pieces), isWhole: true };
    pieces.push(copyBytes(value));
    length += value.length;
  }
  return { start: concatBytes(pieces), isWhole: false };
}

/**
 * Decompresses a whole file in this thread, where that takes a few milliseconds at most and needs no other thread.
 *
 * @returns the contents; `undefined` where the file or they are not small, or anything is wrong with it: {@link decompress}
 *   tells what
 * @throws CastoreError `unimplemented` for a format whose library has no build for this platform
 */
export async function decompressSmall(
  file: Uint8Array,
  compression: Compression,
): Promise<Uint8Array | undefined> {
  if (file.length > SMALL_BYTES) return undefined;
  if (compression === "zstd") return contentsOfFrame(file);
  return compression === "xz" ? await contentsOfXz(file) : undefined;
}

/** Decompresses a frame of zstd; `undefined` where it is not one whole frame, or its contents are not small. */
function contentsOfFrame(frame: Uint8Array): Uint8Array | undefined {
  const size = contentSizeOf(frame);
  if (size === undefined) {
    const window = windowSizeOf(frame) ?? Number.POSITIVE_INFINITY; // the context keeps that much memory
    return window > KEPT_WINDOW ? undefined : zstdCodec().decompressShort(frame, SMALL_CONTENTS);
  }
  if (size > SMALL_CONTENTS) return undefined;
  const contents = new Uint8Array(size);
  return zstdCodec().decompress(frame, contents) ? contents : undefined;
}

/** Decompresses a file of xz; `undefined` where anything is wrong with it, or its contents are not small. */
async function contentsOfXz(file: Uint8Array): Promise<Uint8Array | undefined> {
  const { xz } = await loadLzma();
  const scanner = new XzScanner();
  try {
    scanner.push(file);
    scanner.end();
    return scanner.contentSize <= SMALL_CONTENTS ? xz.decompressSync(file) : undefined;
  } catch {
    return undefined; // the decoder of streams says why
  }
}

/** Decompresses by a library that has a thread of its own, which is some pieces of 64 KiB ahead. */
async function* unxz(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { xz } = await loadLzma();
  const { start, isWhole } = await startOf(source);
  const contents = isWhole ? await contentsOfXz(start) : undefined;
  if (contents !== undefined) {
    yield contents;
    return;
  }
  const scanner = new XzScanner();
  scanner.push(start);
  let failure: { readonly error: unknown } | undefined;
  const scanned = async function* () {
    try {
      yield start;
      for await (const data of source) {
        scanner.push(data);
        yield copyBytes(data);
      }
      scanner.end();
    } catch (error) {
      failure = { error }; // the library would wrap it
      throw error;
    }
  };
  try {
    yield* xz.decompressStream(ReadableStream.from(scanned()));
  } catch (error) {
    throw failure === undefined ? error : failure.error;
  }
}

/** Loads native code, which is not there for every platform. */
async function loadLzma(): Promise<typeof import("@napi-rs/lzma")> {
  try {
    return await import("@napi-rs/lzma");
  } catch (error) {
    const message = 'Cannot decompress xz: package "@napi-rs/lzma" has no build for this platform';
    throw new CastoreError("unimplemented", message, { cause: error });
  }
}

/**
 * Decompresses frames in a row. A decoder of Node.js ends with a frame if it was given more, which is left to the next
 * decoder.
 */
async function* unzstd(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { start, isWhole } = await startOf(source);
  const contents = isWhole ? contentsOfFrame(start) : undefined;
  if (contents !== undefined) {
    yield contents;
    return;
  }
  let rest: Uint8Array | undefined = start;
  do {
    const decoder = createZstdDecompress({ chunkSize: PIECE_BYTES });
    const fed = feedFrame(decoder, rest, source);
    fed.catch((error) => decoder.destroy(error));
    yield* decoder;
    rest = await fed;
  } while (rest !== undefined);
}

/** Feeds a decoder until its frame ends. Resolves with the bytes behind it; `undefined` at the end of the source. */
async function feedFrame(
  decoder: ReturnType<typeof createZstdDecompress>,
  first: Uint8Array | undefined,
  source: AsyncIterator<Uint8Array>,
): Promise<Uint8Array | undefined> {
  let given = 0;
  for (let data = first ?? (await source.next()).value; data; data = (await source.next()).value) {
    await write(decoder, data);
    given += data.length;
    if (decoder.bytesWritten < given) return data.subarray(decoder.bytesWritten - given);
  }
  decoder.end();
  return undefined;
}

function write(decoder: Duplex, data: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    decoder.write(data, (error) => (error ? reject(error) : resolve()));
  });
}
