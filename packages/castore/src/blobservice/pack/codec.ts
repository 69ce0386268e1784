import type { ZstdCodec } from "../../compression/zstd-codec.ts";
import { compressBound, zstdCodec } from "../../compression/zstd-codec.ts";
import { CODEC, type Codec } from "./format.ts";

/** Chunks longer than this are sampled first. */
const SAMPLED = 64 * 1024;

/** Length of a sample. */
const SAMPLE = 4 * 1024;

const sampleTarget = Buffer.allocUnsafeSlow(compressBound(SAMPLE));

/**
 * Compresses a chunk into a payload, or copies it.
 *
 * @param target takes the payload: as long as the chunk, and better of `compressBound` bytes
 */
export function encodeChunk(
  data: Uint8Array,
  target: Uint8Array,
  zstd: ZstdCodec,
): { codec: Codec; storedSize: number } {
  const storedSize = compressChunk(data, target, zstd);
  if (storedSize !== undefined) return { codec: CODEC.zstd, storedSize };
  target.set(data);
  return { codec: CODEC.raw, storedSize: data.length };
}

/**
 * Compresses a chunk. Samples of a long one tell beforehand whether that saves anything.
 *
 * @param target takes the frame: of `compressBound` bytes, so that it fits
 * @returns the length of the frame; `undefined` where it would save less than a 32nd of the chunk, or does not fit
 */
export function compressChunk(
  data: Uint8Array,
  target: Uint8Array,
  zstd: ZstdCodec,
): number | undefined {
  if (isIncompressible(data, zstd)) return undefined;
  const size = zstd.compress(data, target.subarray(0, compressBound(data.length)));
  return size === undefined || isDense(size, data) ? undefined : size;
}

/** Tells whether samples of a long chunk can hardly be compressed. */
function isIncompressible(data: Uint8Array, zstd: ZstdCodec): boolean {
  if (data.length <= SAMPLED) return false;
  const middle = data.length >>> 1;
  return [data.subarray(0, SAMPLE), data.subarray(middle, middle + SAMPLE)].every((sample) =>
    isDense(zstd.compress(sample, sampleTarget) ?? sample.length, sample),
  );
}

function isDense(compressedSize: number, data: Uint8Array): boolean {
  return compressedSize > data.length - data.length / 32;
}

/**
 * Decodes a payload into memory as long as the chunk. Returns whether that is its length; the digest is not looked at.
 */
export function decodeInto(target: Uint8Array, codec: Codec, payload: Uint8Array): boolean {
  if (codec === CODEC.zstd) return zstdCodec().decompress(payload, target);
  if (payload.length !== target.length) return false;
  target.set(payload);
  return true;
}
