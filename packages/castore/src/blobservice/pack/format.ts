/**
 * What stands in a pack: records, one after the other, each a header of 52 bytes and its payload. All
 * numbers are little-endian.
 *
 * | bytes | header field |
 * |---|---|
 * | 4 | kind: `TVXc` for a chunk, `TVXb` for a blob of two or more chunks |
 * | 1 | codec of the payload: 0 as it is, 1 one zstd frame that states its content size |
 * | 3 | zero |
 * | 4 | length of the payload |
 * | 4 | chunk: its length; blob: how many chunks it has |
 * | 32 | BLAKE3 digest of the chunk or blob |
 * | 4 | CRC-32 of the 48 bytes before |
 *
 * The payload of a chunk is its contents. That of a blob is its list of chunks in order, 36 bytes each:
 * digest, length. So packs alone suffice to make a new index.
 */
import { crc32 } from "node:zlib";
import { B3Digest } from "../../digest.ts";
import type { ChunkMeta } from "../blob-service.ts";

/** How the payload of a chunk is stored. */
export const CODEC = { raw: 0, zstd: 1 } as const;
export type Codec = (typeof CODEC)[keyof typeof CODEC];

/** Length of the header of a record in bytes. */
export const HEADER_LENGTH = 52;

const CHUNK_ENTRY_LENGTH = B3Digest.LENGTH + 4;

/** The header of the record of a chunk. */
export function chunkHeader(
  digest: B3Digest,
  { codec, storedSize, size }: { codec: Codec; storedSize: number; size: number },
): Uint8Array {
  return header("TVXc", codec, storedSize, size, digest);
}

/** The whole record of a blob. */
export function blobRecord(digest: B3Digest, chunks: readonly ChunkMeta[]): Uint8Array {
  const payload = encodeChunkList(chunks);
  const head = header("TVXb", CODEC.raw, payload.length, chunks.length, digest);
  return Buffer.concat([head, payload]);
}

function header(
  kind: string,
  codec: Codec,
  storedSize: number,
  size: number,
  digest: B3Digest,
): Uint8Array {
  const bytes = Buffer.alloc(HEADER_LENGTH);
  bytes.write(kind, "latin1");
  bytes.writeUInt8(codec, 4);
  bytes.writeUInt32LE(storedSize, 8);
  bytes.writeUInt32LE(size, 12);
  bytes.set(digest.bytes, 16);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 48)), 48);
  return bytes;
}

/** A list of chunks in order: digest and length of each. */
export function encodeChunkList(chunks: readonly ChunkMeta[]): Uint8Array {
  const bytes = Buffer.alloc(chunks.length * CHUNK_ENTRY_LENGTH);
  chunks.forEach(({ digest, size }, i) => {
    bytes.set(digest.bytes, i * CHUNK_ENTRY_LENGTH);
    bytes.writeUInt32LE(size, i * CHUNK_ENTRY_LENGTH + B3Digest.LENGTH);
  });
  return bytes;
}

/** Decodes what {@link encodeChunkList} gives. */
export function decodeChunkList(bytes: Uint8Array): ChunkMeta[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const chunks: ChunkMeta[] = [];
  for (let at = 0; at + CHUNK_ENTRY_LENGTH <= bytes.length; at += CHUNK_ENTRY_LENGTH) {
    const digest = B3Digest.fromBytes(bytes.subarray(at, at + B3Digest.LENGTH));
    chunks.push({ digest, size: view.getUint32(at + B3Digest.LENGTH, true) });
  }
  return chunks;
}
