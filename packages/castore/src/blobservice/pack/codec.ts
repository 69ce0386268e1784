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
 * Returns the contents of a chunk; `undefined` if the payload is damaged. Never returns, or takes memory for, more than
 * `size` bytes.
 *
 * @param memory returns memory for the contents of a compressed chunk. Default: memory of their own
 */
export function decodeChunk(
  { codec, payload }: { codec: Codec; payload: Uint8Array },
  size: number,
  memory: (length: number) => Uint8Array = Buffer.allocUnsafe,
): Uint8Array | undefined {
  if (codec === CODEC.raw) return payload;
  const contents = memory(size);
  return zstdCodec().decompress(payload, contents) ? contents : undefined;
}
