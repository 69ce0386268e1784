import * as zlib from "node:zlib";
import { CODEC, type Codec } from "./format.ts";

/** Chunks longer than this are sampled first. */
const SAMPLED = 64 * 1024;

/** Length of a sample. */
const SAMPLE = 4 * 1024;

/** A chunk as it is stored. */
export interface StoredChunk<Memory extends ArrayBufferLike = ArrayBufferLike> {
  readonly codec: Codec;
  readonly payload: Uint8Array<Memory>;
}

/**
 * Compresses a chunk, unless that would save less than a 32nd of it; samples of a long one tell that
 * without compressing it.
 */
export function encodeChunk(data: Uint8Array, level: number): StoredChunk {
  const options = { params: { [zlib.constants.ZSTD_c_compressionLevel]: level } };
  const raw: StoredChunk = { codec: CODEC.raw, payload: data };
  if (data.length > SAMPLED) {
    const middle = data.length >>> 1;
    const samples = [data.subarray(0, SAMPLE), data.subarray(middle, middle + SAMPLE)];
    if (samples.every((sample) => isDense(zlib.zstdCompressSync(sample, options), sample))) {
      return raw;
    }
  }
  const payload = zlib.zstdCompressSync(data, { ...options, chunkSize: outputSize(data.length) });
  return isDense(payload, data) ? raw : { codec: CODEC.zstd, payload };
}

function isDense(compressed: Uint8Array, data: Uint8Array): boolean {
  return compressed.length > data.length - data.length / 32;
}

/**
 * Gives back the contents of a chunk; `undefined` if the payload is damaged. Never gives, or takes
 * memory for, more than `size` bytes.
 */
export function decodeChunk(
  { codec, payload }: StoredChunk<ArrayBuffer>,
  size: number,
): Uint8Array<ArrayBuffer> | undefined {
  if (codec === CODEC.raw) return payload;
  try {
    return zlib.zstdDecompressSync(payload, {
      maxOutputLength: Math.max(size, 1),
      chunkSize: outputSize(size),
    });
  } catch {
    return undefined; // whatever is wrong with it, these are not the bytes that were put
  }
}

/** Length of the buffers that output comes in: one is enough for what has any use. In bytes. */
function outputSize(length: number): number {
  return Math.max(length, zlib.constants.Z_MIN_CHUNK);
}
