/** xz: blocks with uncompressed chunks of LZMA2. https://tukaani.org/xz/xz-file-format.txt */
import { crc32 } from "node:zlib";
import type { StoredFormat } from "./stored-format.ts";

/** Each block ends with the CRC-32 of its contents. */
const STREAM_FLAGS = Buffer.of(0x00, 0x01);
const CHECK_BYTES = 4;

const MAGIC = Buffer.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00);
const FOOTER_MAGIC = Buffer.from("YZ");

/** One filter, which is LZMA2, with one byte of properties: a dictionary of 1 MiB. */
const FILTERS = Buffer.of(0x00, 0x21, 0x01, 16);

/** Header of a block; its first byte is its length in words, less one. */
const BLOCK_HEADER = withCrc(Buffer.of(2, ...FILTERS, 0, 0, 0));

/** Control bytes of LZMA2. */
const CHUNK_AFTER_RESET = 1;
const CHUNK = 2;
const CHUNK_HEADER = 3;
const END_OF_CHUNKS = 0;
const MAX_CHUNK = 65_536;

/** A block for each segment, and a chunk for each of ours. */
export const STORED_XZ: StoredFormat = {
  head: Buffer.concat([MAGIC, withCrc(STREAM_FLAGS)]),
  prefix: BLOCK_HEADER,
  maxBlock: MAX_CHUNK,
  blockHeaderLength: CHUNK_HEADER,
  writeBlockHeader(target, at, { length, isFirst }) {
    target[at] = isFirst ? CHUNK_AFTER_RESET : CHUNK;
    target.writeUInt16BE(length - 1, at + 1);
  },
  suffixLength(size) {
    return 1 + paddingOf(dataLength(size)) + CHECK_BYTES;
  },
  writeSuffix(target, at, size, crc) {
    const end = at + 1 + paddingOf(dataLength(size));
    target.fill(END_OF_CHUNKS, at, end); // padding is of zeros, too
    target.writeUInt32LE(crc, end);
  },
  tail(segments, full, last) {
    const one = Buffer.from(record(full));
    const body = Buffer.concat([
      Buffer.of(0x00, ...variable(segments)),
      Buffer.alloc((segments - 1) * one.length, one),
      Buffer.from(record(last)),
    ]);
    const index = withCrc(Buffer.concat([body, Buffer.alloc(paddingOf(body.length))]));
    const backward = Buffer.alloc(4);
    backward.writeUInt32LE(index.length / 4 - 1);
    const footer = Buffer.concat([backward, STREAM_FLAGS]);
    return Buffer.concat([index, crcOf(footer), footer, FOOTER_MAGIC]);
  },
};

/** Length of the chunks of a block, and of the byte that ends them. */
function dataLength(size: number): number {
  return size + Math.ceil(size / MAX_CHUNK) * CHUNK_HEADER + 1;
}

/** Entry of the index for a block: its length without padding, and that of its contents. */
function record(size: number): number[] {
  return [...variable(BLOCK_HEADER.length + dataLength(size) + CHECK_BYTES), ...variable(size)];
}

/** A number in groups of seven bits, the low ones first. */
function variable(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 128);
  }
}

function paddingOf(length: number): number {
  return -length & 3;
}

function withCrc(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, crcOf(bytes)]);
}

function crcOf(bytes: Buffer): Buffer {
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(bytes));
  return crc;
}
