/**
 * A format of compression, written without compressing: contents stand in its files as they are, cut into segments that
 * can be made one by one. Lengths follow from that of the contents.
 *
 * A segment is a prefix, blocks of contents with a header each, and a suffix. A file is a head, segments and a tail.
 */
export interface StoredFormat {
  readonly head: Uint8Array;
  readonly prefix: Uint8Array;
  /** Longest block, in bytes. */
  readonly maxBlock: number;
  /** Length of the header of a block. */
  readonly blockHeaderLength: number;
  /** Writes the header of a block of `length` bytes, the first or last of its segment. */
  writeBlockHeader(
    target: Buffer,
    at: number,
    block: { readonly length: number; readonly isFirst: boolean; readonly isLast: boolean },
  ): void;
  /** Returns the length of the suffix of a segment of `size` bytes of contents. */
  suffixLength(size: number): number;
  /** Writes the suffix of a segment of `size` bytes of contents, whose CRC-32 is `crc`. */
  writeSuffix(target: Buffer, at: number, size: number, crc: number): void;
  /** Makes the tail of a file from the contents of its segments, in bytes: all have `full` but the last. */
  tail(segments: number, full: number, last: number): Uint8Array;
}
