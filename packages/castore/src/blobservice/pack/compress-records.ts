import { encodeChunk } from "./codec.ts";
import { HEADER_LENGTH, readHeader, writeHeader } from "./format.ts";

/** Records, one after the other. */
export interface Records {
  /** Begins with the records. Shared by the threads that work on it in turn, unless it is small. */
  readonly bytes: Uint8Array;
  /** How many of the bytes are records. */
  readonly length: number;
}

/**
 * Compresses the payloads of records where that pays, in place: what is shorter moves up. For a thread
 * of the pool.
 *
 * @param task records of chunks as they are, and the level of zstd
 * @returns the length of the records now
 */
export function compressRecords(task: Records & { level: number }): number {
  const { buffer, byteOffset } = task.bytes;
  const bytes = Buffer.from(buffer, byteOffset, task.bytes.length);
  let length = 0;
  for (let at = 0; at < task.length; ) {
    const header = readHeader(bytes, at);
    // A copy: what is written below may cover it.
    const digest = header.digest.copy();
    const start = at + HEADER_LENGTH;
    at = start + header.size;
    const { codec, payload } = encodeChunk(bytes.subarray(start, at), task.level);
    const storedSize = payload.length;
    bytes.set(payload, length + HEADER_LENGTH);
    writeHeader(bytes, length, { ...header, digest, codec, storedSize });
    length += HEADER_LENGTH + storedSize;
  }
  return length;
}
