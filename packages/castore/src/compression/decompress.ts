import type { Duplex } from "node:stream";
import { createBrotliDecompress, createGunzip, createZstdDecompress } from "node:zlib";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";

/** A format that {@link decompress} can read. */
export type Compression = "br" | "bzip2" | "gzip" | "xz" | "zstd";

/** Decodes a stream, whose pieces are lent. Libraries are loaded when they are needed. */
type Decoder = (source: AsyncGenerator<Uint8Array>) => AsyncGenerator<Uint8Array>;

const DECODERS: Readonly<Record<Compression, Decoder>> = {
  br: (source) => through(source, createBrotliDecompress()),
  bzip2: bunzip2,
  gzip: (source) => through(source, createGunzip()),
  xz: unxz,
  zstd: unzstd,
};

/** Every {@link Compression}. */
export const COMPRESSIONS: readonly Compression[] = Object.keys(DECODERS) as Compression[];

/** A frame of zstd that is to be skipped begins with one of 16 magics. */
const ZSTD_SKIPPABLE = Array.from({ length: 16 }, (_, i) =>
  Buffer.from([0x50 + i, 0x2a, 0x4d, 0x18]),
);

/** What streams of a format begin with. Those of brotli begin with anything. */
const MAGICS: readonly (readonly [Exclude<Compression, "br">, Buffer])[] = [
  ["bzip2", Buffer.from("BZh")],
  ["gzip", Buffer.from([0x1f, 0x8b, 0x08])],
  ["xz", Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ["zstd", Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ...ZSTD_SKIPPABLE.map((magic) => ["zstd", magic] as const), // which pzstd writes first
];

/** How many bytes of a stream {@link compressionOf} looks at. */
export const MAGIC_LENGTH = 10;

/** Which format a stream is in that begins with these bytes; `undefined` if it is none that can be told. */
export function compressionOf(start: Uint8Array): Exclude<Compression, "br"> | undefined {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.length);
  const found = MAGICS.find(([, magic]) => bytes.subarray(0, magic.length).equals(magic));
  // Text may begin with BZh, too. Behind it and a digit stands what a block begins with, or the end.
  if (found?.[0] === "bzip2" && !BZIP2_NEXT.includes(bytes.toString("hex", 4, 10)))
    return undefined;
  return found?.[0];
}

/** The digits of pi, and of its square root. */
const BZIP2_NEXT = ["314159265359", "177245385090"];

/**
 * Decompresses a stream, which may consist of several compressed ones after one another, as far as it is
 * read. Its pieces may be lent until the next one is asked for; those that come out belong to whoever iterates. Ending
 * early releases what it holds.
 *
 * Iterating throws CastoreError `data_loss` for what is not in that format or breaks off, `unimplemented` for a format
 * whose library is not there for this platform; whatever the stream throws; `signal.reason` when cancelled.
 */
export async function* decompress(
  stream: AsyncIterable<Uint8Array>,
  compression: Compression,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  const signal = options?.signal;
  const action = `Cannot decompress ${compression}`;
  signal?.throwIfAborted();
  let failure: { readonly error: unknown } | undefined;
  let bytes = 0;
  const source = (async function* () {
    try {
      for await (const data of stream) {
        signal?.throwIfAborted();
        bytes += data.length;
        yield data;
      }
      // Not every decoder would say so, or even end.
      if (bytes === 0) throw new CastoreError("data_loss", `${action}: found nothing`);
    } catch (error) {
      failure = { error };
      throw error;
    }
  })();
  try {
    yield* DECODERS[compression](source);
  } catch (error) {
    if (failure !== undefined) throw failure.error;
    if (error instanceof CastoreError) throw error;
    const { message } = error as Error;
    throw new CastoreError("data_loss", `${action}: ${message}`, { cause: error });
  } finally {
    await source.return(undefined);
  }
}

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

/** The decoder has a thread of its own, which is some pieces ahead. */
async function* unxz(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { xz } = await loadLzma();
  const owned = async function* () {
    for await (const data of source) yield copyBytes(data);
  };
  yield* xz.decompressStream(ReadableStream.from(owned()));
}

/** It is native code, which is not there for every platform. */
async function loadLzma(): Promise<typeof import("@napi-rs/lzma")> {
  try {
    return await import("@napi-rs/lzma");
  } catch (error) {
    const message = 'Cannot decompress xz: package "@napi-rs/lzma" has no build for this platform';
    throw new CastoreError("unimplemented", message, { cause: error });
  }
}

/** The decoder is a stream of the first kind, which gives what it has while it is written to, and cannot be awaited. */
async function* bunzip2(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { default: unbzip2 } = await import("unbzip2-stream");
  const ready: Uint8Array[] = [];
  let failure: { readonly error: unknown } | undefined;
  const decoder = unbzip2();
  decoder.on("data", (data) => ready.push(data));
  decoder.on("error", (error) => {
    failure ??= { error };
  });
  const take = (): readonly Uint8Array[] => {
    if (failure !== undefined) throw failure.error;
    return ready.splice(0);
  };
  for await (const data of source) {
    decoder.write(copyBytes(data)); // it keeps it until a block is complete
    yield* take();
  }
  decoder.end();
  yield* take();
}

/**
 * Decodes frames that follow one another. A decoder of Node.js ends with a frame behind which it was given
 * more, and leaves that to another one.
 */
async function* unzstd(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array | undefined;
  do {
    const decoder = createZstdDecompress();
    const fed = feedFrame(decoder, rest, source);
    fed.catch((error) => decoder.destroy(error));
    yield* decoder;
    rest = await fed;
  } while (rest !== undefined);
}

/** Gives a decoder what it takes; resolves with what it has left over, `undefined` after the last. */
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
