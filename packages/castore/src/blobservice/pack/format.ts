/**
 * What stands in a pack: records, one after the other, each a header of 52 bytes and its payload. All
 * numbers are little-endian.
 *
 * | bytes | header field |
 * |---|---|
 * | 4 | kind: `TVXc` for a chunk, `TVXb` for a blob of two or more chunks |
 * | 1 | codec of the payload: 0 as it is, 1 one zstd frame that states its content size |
 * | 1 | 1 for a chunk that was committed as a blob as well; otherwise 0 |
 * | 2 | zero |
 * | 4 | length of the payload |
 * | 4 | chunk: its length; blob: how many chunks it has |
 * | 32 | BLAKE3 digest of the chunk or blob |
 * | 4 | CRC-32 of the 48 bytes before |
 *
 * The payload of a chunk is its contents. That of a blob is its list of chunks in order, 36 bytes each:
 * digest, length. So packs alone suffice to make a new index.
 *
 * A chunk without that mark may be a blob as well, which the index knows. Where the index of a power failure lacks chunks with the
 * mark, they are read from the pack.
 */
import { crc32 } from "node:zlib";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { ChunkList } from "../chunk-list.ts";

/** How the payload of a chunk is stored. */
export const CODEC = { raw: 0, zstd: 1 } as const;
export type Codec = (typeof CODEC)[keyof typeof CODEC];

/** Length of the header of a record in bytes. */
export const HEADER_LENGTH = 52;

/** What the header of a record says. Sizes in bytes. */
export interface RecordHeader {
  readonly kind: "chunk" | "blob";
  readonly codec: Codec;
  /** Length of the payload. */
  readonly storedSize: number;
  /** Of a chunk: its length. Of a blob: how many chunks it has. */
  readonly size: number;
  readonly digest: B3Digest;
  /** Of a chunk: whether it is marked as a blob as well. */
  readonly isBlob: boolean;
}

const KINDS = { chunk: "TVXc", blob: "TVXb" } as const;
const KIND_BYTES = { chunk: Buffer.from(KINDS.chunk), blob: Buffer.from(KINDS.blob) } as const;

/** Length of the longest list of chunks, in bytes: the length of a record has 32 bits. */
export const MAX_LIST_BYTES: number =
  Math.floor((2 ** 32 - 1) / ChunkList.ENTRY_BYTES) * ChunkList.ENTRY_BYTES;

/** What every header begins with. */
export const MAGIC = "TVX";

/** Memory of this thread for a header, and what of it the checksum is of: to make views of a slab takes longer than to copy. */
const header = Buffer.alloc(HEADER_LENGTH);
const checked = header.subarray(0, 48);

/** Writes a header into the first {@link HEADER_LENGTH} bytes from a position on. */
export function writeHeader(
  bytes: Buffer,
  at: number,
  { kind, codec, storedSize, size, digest, isBlob }: RecordHeader,
): void {
  header.set(KIND_BYTES[kind]);
  header.writeUInt32LE(codec | (isBlob ? 1 << 8 : 0), 4);
  header.writeUInt32LE(storedSize, 8);
  header.writeUInt32LE(size, 12);
  header.set(digest.bytes, 16);
  header.writeUInt32LE(crc32(checked), 48);
  bytes.set(header, at);
}

/** Where the mark of a chunk stands in its header. */
const MARK_AT = 5;

/** Sets or removes the mark of the record of a chunk, which begins with `bytes`. */
export function markBlob(bytes: Buffer, isBlob: boolean): void {
  bytes[MARK_AT] = isBlob ? 1 : 0;
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 48)), 48);
}

/** Reads the header that {@link writeHeader} wrote; its digest is a part of `bytes`. */
export function readHeader(bytes: Buffer, at: number): RecordHeader {
  const kind = bytes[at + 3] === KIND_BYTES.blob[3] ? "blob" : "chunk";
  return {
    kind,
    codec: bytes[at + 4] as Codec,
    storedSize: bytes.readUInt32LE(at + 8),
    size: bytes.readUInt32LE(at + 12),
    digest: B3Digest.fromBytes(bytes.subarray(at + 16, at + 16 + B3Digest.LENGTH)),
    isBlob: kind === "chunk" && bytes[at + MARK_AT] === 1,
  };
}

/** Whether a header stands at a position, whatever follows it. */
export function isHeader(bytes: Buffer, at: number): boolean {
  const kind = bytes.toString("latin1", at, at + 4);
  const codec = bytes[at + 4];
  const isMark = bytes[at + MARK_AT]! <= 1 && bytes.readUInt16LE(at + MARK_AT + 1) === 0;
  const isKnown = Object.values(KINDS).some((known) => known === kind);
  const isOffered = Object.values(CODEC).some((known) => known === codec);
  return (
    isKnown &&
    isOffered &&
    isMark &&
    crc32(bytes.subarray(at, at + 48)) === bytes.readUInt32LE(at + 48)
  );
}

/** Makes the record of a blob of a list that {@link storedList} gives. */
export function blobRecord(digest: B3Digest, list: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEADER_LENGTH + list.length);
  writeBlobHeader(bytes, 0, digest, list.length);
  bytes.set(list, HEADER_LENGTH);
  return bytes;
}

/** Writes the header of the record of a blob at a position, by the length of its packed list. */
export function writeBlobHeader(
  bytes: Buffer,
  at: number,
  digest: B3Digest,
  listLength: number,
): void {
  const size = listLength / ChunkList.ENTRY_BYTES;
  const header = { codec: CODEC.raw, storedSize: listLength, size, digest, isBlob: false };
  writeHeader(bytes, at, { kind: "blob", ...header });
}

/**
 * Returns the packed list of a blob as it is committed: the empty blob is listed as a chunk of no bytes.
 *
 * @throws CastoreError `resource_exhausted` for a list that does not fit into a record
 */
export function storedList(digest: B3Digest, chunks: ChunkList): Uint8Array {
  if (chunks.length === 0) return chunkEntry(digest, 0);
  if (chunks.bytes.length <= MAX_LIST_BYTES) return chunks.bytes;
  throw new CastoreError(
    "resource_exhausted",
    `Cannot store blob ${digest}: expected a list of chunks of at most ${MAX_LIST_BYTES} bytes, ` +
      `found ${chunks.bytes.length}. Larger chunks make it shorter`,
  );
}

/** Packs one chunk as in a list. */
export function chunkEntry(digest: B3Digest, size: number): Uint8Array {
  const entry = Buffer.alloc(ChunkList.ENTRY_BYTES);
  writeChunkEntry(entry, 0, digest, size);
  return entry;
}

/** Packs one chunk as in a list, at a position. */
export function writeChunkEntry(bytes: Buffer, at: number, digest: B3Digest, size: number): void {
  bytes.set(digest.bytes, at);
  bytes.writeUInt32LE(size, at + B3Digest.LENGTH);
}
