import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { CODEC, type Codec } from "./format.ts";

const compress = promisify(zlib.zstdCompress);
const decompress = promisify(zlib.zstdDecompress);

/**
 * Chunks up to this size are compressed and decompressed at once: a trip to the thread pool costs several
 * times what the work itself does.
 */
const SMALL = 64 * 1024;

/** Of larger chunks this much is compressed first, to see whether the rest is worth it. */
const SAMPLE = 4 * 1024;

/** A chunk as it is stored. */
export interface StoredChunk {
  readonly codec: Codec;
  readonly payload: Uint8Array;
}

/** Compresses a chunk, unless that would save less than a 32nd of it. */
export async function encodeChunk(data: Uint8Array, level: number): Promise<StoredChunk> {
  const options = { params: { [zlib.constants.ZSTD_c_compressionLevel]: level } };
  const raw: StoredChunk = { codec: CODEC.raw, payload: data };
  if (data.length > SMALL) {
    const middle = data.length >>> 1;
    const samples = [data.subarray(0, SAMPLE), data.subarray(middle, middle + SAMPLE)];
    if (samples.every((sample) => isDense(zlib.zstdCompressSync(sample, options), sample))) {
      return raw;
    }
  }
  const payload =
    data.length > SMALL ? await compress(data, options) : zlib.zstdCompressSync(data, options);
  return isDense(payload, data) ? raw : { codec: CODEC.zstd, payload };
}

function isDense(compressed: Uint8Array, data: Uint8Array): boolean {
  return compressed.length > data.length - data.length / 32;
}

/**
 * Gives back the contents of a chunk; `undefined` if the payload is damaged. Never gives, or takes
 * memory for, more than `size` bytes.
 */
export async function decodeChunk(
  { codec, payload }: StoredChunk,
  size: number,
): Promise<Uint8Array | undefined> {
  if (codec === CODEC.raw) return payload;
  const options = { maxOutputLength: Math.max(size, 1) };
  try {
    return size <= SMALL
      ? zlib.zstdDecompressSync(payload, options)
      : await decompress(payload, options);
  } catch {
    return undefined; // whatever is wrong with it, these are not the bytes that were put
  }
}
