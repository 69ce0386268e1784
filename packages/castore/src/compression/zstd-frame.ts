import { promisify } from "node:util";
import { constants, zstdCompress } from "node:zlib";
import { asBuffer } from "../bytes/byte-string.ts";
import { freeMemory } from "../bytes/free-memory.ts";

const compress = promisify<Uint8Array, object, Buffer>(zstdCompress);

const MAGIC = 0xfd2fb528;

/** In the frame header descriptor: there is no window size, as the contents are the window. */
const SINGLE_SEGMENT = 0x20;

/** In the frame header descriptor: a checksum of the contents follows the last block. */
const CHECKSUM = 0x04;
const CHECKSUM_BYTES = 4;

/** Longest block, in bytes. */
const MAX_BLOCK = 128 * 1024;

/** Length of the header of a block. */
const BLOCK_HEADER = 3;

/**
 * Compresses bytes into one zstd frame that states its content size, or makes a frame of raw blocks where that is not
 * longer.
 *
 * @param level level of zstd, 1 to 22. Default: 1
 */
export async function compressToFrame(data: Uint8Array, level = 1): Promise<Uint8Array> {
  const frame = await compress(data, {
    params: { [constants.ZSTD_c_compressionLevel]: level },
    pledgedSrcSize: data.length,
    chunkSize: Math.max(data.length, constants.Z_MIN_CHUNK),
  });
  if (frame.length < data.length) return frame;
  freeMemory([frame]);
  return rawFrame(data);
}

/** Returns the length of the {@link rawFrame} of so many bytes. */
export function rawFrameLength(size: number): number {
  return frameHeader(size).length + blocksOf(size) * BLOCK_HEADER + size;
}

function blocksOf(size: number): number {
  return Math.max(Math.ceil(size / MAX_BLOCK), 1);
}

/** Makes a zstd frame of bytes as they are, which states its content size: raw blocks, as in RFC 8878. */
export function rawFrame(data: Uint8Array): Uint8Array {
  const blocks = blocksOf(data.length);
  const header = frameHeader(data.length);
  const frame = new Uint8Array(header.length + blocks * BLOCK_HEADER + data.length);
  frame.set(header);
  let at = header.length;
  for (let i = 0; i < blocks; i++) {
    const block = data.subarray(i * MAX_BLOCK, (i + 1) * MAX_BLOCK);
    const isLast = i === blocks - 1 ? 1 : 0;
    const blockHeader = isLast | (block.length << 3); // the type between them is 0: raw
    frame[at] = blockHeader;
    frame[at + 1] = blockHeader >>> 8;
    frame[at + 2] = blockHeader >>> 16;
    frame.set(block, at + BLOCK_HEADER);
    at += BLOCK_HEADER + block.length;
  }
  return frame;
}

/** The header of a frame whose contents are its window: magic number, descriptor, length of the contents. */
function frameHeader(size: number): Uint8Array {
  const header = Buffer.alloc(9);
  header.writeUInt32LE(MAGIC);
  if (size < 256) {
    header[4] = SINGLE_SEGMENT;
    header[5] = size;
    return header.subarray(0, 6);
  }
  if (size < 256 + 65_536) {
    header[4] = SINGLE_SEGMENT | (1 << 6);
    header.writeUInt16LE(size - 256, 5);
    return header.subarray(0, 7);
  }
  header[4] = SINGLE_SEGMENT | (2 << 6);
  header.writeUInt32LE(size, 5);
  return header;
}

/** What the header of a zstd frame says. Lengths in bytes. */
interface FrameHeader {
  /** Length of the header itself. */
  readonly length: number;
  readonly contentSize: number | undefined;
  readonly windowSize: number;
  readonly hasDictionary: boolean;
  readonly hasChecksum: boolean;
}

/** Parses the header of a frame; `undefined` where it is none, or not whole. */
function parseHeader(frame: Uint8Array): FrameHeader | undefined {
  const bytes = asBuffer(frame);
  if (bytes.length < 6 || bytes.readUInt32LE() !== MAGIC) return undefined;
  const descriptor = bytes[4]!;
  const isSingleSegment = (descriptor & SINGLE_SEGMENT) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  const sizeFlag = descriptor >>> 6;
  const sizeBytes = sizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 2 ** sizeFlag;
  if (bytes.length < at + sizeBytes) return undefined;
  const contentSize = readContentSize(bytes, at, sizeBytes);
  const window = 2 ** (10 + (bytes[5]! >>> 3));
  return {
    length: at + sizeBytes,
    contentSize,
    windowSize: isSingleSegment ? contentSize! : window + (window / 8) * (bytes[5]! & 7),
    hasDictionary: dictionaryBytes > 0,
    hasChecksum: (descriptor & CHECKSUM) !== 0,
  };
}

function readContentSize(bytes: Buffer, at: number, sizeBytes: number): number | undefined {
  switch (sizeBytes) {
    case 0:
      return undefined;
    case 1:
      return bytes[at];
    case 2:
      return bytes.readUInt16LE(at) + 256;
    case 4:
      return bytes.readUInt32LE(at);
    default:
      return Number(bytes.readBigUInt64LE(at));
  }
}

/**
 * Reads the content size that a zstd frame states; `undefined` where it states none, or is no zstd frame.
 *
 * @param frame at least the first 18 bytes of it, or all of it
 */
export function contentSizeOf(frame: Uint8Array): number | undefined {
  return parseHeader(frame)?.contentSize;
}

/** Reads how much memory a zstd frame needs to be decompressed, in bytes; `undefined` where it is no zstd frame. */
export function windowSizeOf(frame: Uint8Array): number | undefined {
  return parseHeader(frame)?.windowSize;
}

/**
 * Finds the end of the frame that bytes begin with, without decompressing it.
 *
 * @returns the length of the frame in bytes; `undefined` where it is no zstd frame, needs a dictionary, or is not whole
 */
export function frameLengthOf(bytes: Uint8Array): number | undefined {
  const header = parseHeader(bytes);
  if (header === undefined || header.hasDictionary) return undefined;
  let at = header.length;
  for (let isLast = false; !isLast; ) {
    if (at + BLOCK_HEADER > bytes.length) return undefined;
    const block = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
    isLast = (block & 1) !== 0;
    const isRunLength = ((block >>> 1) & 3) === 1; // a byte that is repeated
    at += BLOCK_HEADER + (isRunLength ? 1 : block >>> 3);
  }
  if (header.hasChecksum) at += CHECKSUM_BYTES;
  return at <= bytes.length ? at : undefined;
}

/**
 * Tells what is wrong with a frame that somebody else has made, before it is decompressed or served to others; `undefined` if
 * nothing is: it is one frame, behind which nothing stands, needs no dictionary, and states the length of its contents.
 *
 * @param size expected length of the contents in bytes
 * @param maxWindow longest window that may be needed to decompress it, in bytes
 */
export function faultOfFrame(
  frame: Uint8Array,
  size: number,
  maxWindow: number,
): string | undefined {
  const header = parseHeader(frame);
  if (header === undefined) return "it is no zstd frame";
  if (header.hasDictionary) return "it needs a dictionary";
  if (header.contentSize === undefined) return "it does not state the length of its contents";
  if (header.contentSize !== size) {
    return `it states contents of ${header.contentSize} bytes, listed are ${size}`;
  }
  if (header.windowSize > maxWindow) {
    return `it needs a window of ${header.windowSize} bytes, expected at most ${maxWindow}`;
  }
  const length = frameLengthOf(frame);
  if (length === undefined) return "it is not whole";
  return length === frame.length ? undefined : `${frame.length - length} bytes stand behind it`;
}
