/** gzip: members with stored blocks of deflate. RFC 1952 and RFC 1951, section 3.2.4. */
import type { StoredFormat } from "./stored-format.ts";

/** Magic number and deflate; no flags, no time, unknown system. */
const MEMBER_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);

/** CRC-32 and length of the contents. */
const MEMBER_END = 8;

/** A member for each segment. */
export const STORED_GZIP: StoredFormat = {
  head: new Uint8Array(0),
  prefix: MEMBER_HEADER,
  maxBlock: 65_535,
  blockHeaderLength: 5,
  writeBlockHeader(target, at, { length, isLast }) {
    target[at] = isLast ? 1 : 0;
    target.writeUInt16LE(length, at + 1);
    target.writeUInt16LE(length ^ 0xffff, at + 3);
  },
  suffixLength: () => MEMBER_END,
  writeSuffix(target, at, size, crc) {
    target.writeUInt32LE(crc, at);
    target.writeUInt32LE(size, at + 4);
  },
  tail: () => new Uint8Array(0),
};
