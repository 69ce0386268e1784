/** Brotli: uncompressed meta-blocks. RFC 7932, section 9. */
import type { StoredFormat } from "./stored-format.ts";

/** A window of 64 KiB, and an empty meta-block of metadata, which ends at the border of a byte. */
const HEAD = 0x0c;

/** An empty meta-block, which is the last. */
const END = 0x03;

/** In the header of a meta-block, behind its length: its contents are not compressed. */
const UNCOMPRESSED = 1 << 19;

/** A meta-block for each block. */
export const STORED_BROTLI: StoredFormat = {
  head: Uint8Array.of(HEAD),
  prefix: new Uint8Array(0),
  maxBlock: 65_536,
  blockHeaderLength: 3,
  writeBlockHeader(target, at, { length }) {
    // It is not the last, and its length has four nibbles: three bits of zero.
    target.writeUIntLE(((length - 1) << 3) | UNCOMPRESSED, at, 3);
  },
  suffixLength: () => 0,
  writeSuffix: () => undefined,
  tail: () => Uint8Array.of(END),
};
