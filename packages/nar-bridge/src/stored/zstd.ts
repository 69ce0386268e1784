/** zstd: frames with raw blocks. RFC 8878, section 3.1.1. */
import type { StoredFormat } from "./stored-format.ts";

/** Magic number, no content size, and a window of 128 KiB, which is the longest block. */
const FRAME_HEADER = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38);

/** A frame for each segment. */
export const STORED_ZSTD: StoredFormat = {
  head: new Uint8Array(0),
  prefix: FRAME_HEADER,
  maxBlock: 128 * 1024,
  blockHeaderLength: 3,
  writeBlockHeader(target, at, { length, isLast }) {
    target.writeUIntLE((length << 3) | (isLast ? 1 : 0), at, 3); // the type between them is 0: raw
  },
  suffixLength: () => 0,
  writeSuffix: () => undefined,
  tail: () => new Uint8Array(0),
};
