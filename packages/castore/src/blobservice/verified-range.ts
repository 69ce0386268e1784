import type { AbortOptions } from "../bytes/abort-options.ts";
import { GROUP_BYTES, MAX_HASHED_BYTES } from "../hash/blake3-tree.ts";
import { Outboard, OutboardEncoder } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import type { BlobService, ReadOptions } from "./blob-service.ts";

/** A blob service that may have the outboards of its blobs, which saves computing them. */
export interface OutboardSource {
  /**
   * @returns `undefined` if there is no such blob, or no outboard of it
   * @throws CastoreError `data_loss` if the outboard belongs to another blob
   */
  outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined>;
}

/** Options of {@link outboardOf}. */
export interface OutboardOptions extends AbortOptions {
  /** Maximum length of the outboard in bytes. Default: no limit. */
  maxBytes?: number | undefined;
}

/**
 * Returns the outboard of a blob: from the service if that is an {@link OutboardSource} and has it, or else computed,
 * which reads the whole blob.
 *
 * @returns `undefined` if there is no such blob
 * @throws CastoreError `resource_exhausted` if it would be longer than `maxBytes`; the errors of the service
 */
export async function outboardOf(
  blobService: BlobService | (BlobService & OutboardSource),
  digest: B3Digest,
  { maxBytes = Number.POSITIVE_INFINITY, signal }: OutboardOptions = {},
): Promise<Outboard | undefined> {
  const found = "outboard" in blobService && (await blobService.outboard(digest, { signal }));
  if (found) return found;
  const stream = await blobService.read(digest, { signal });
  if (stream === undefined) return undefined;
  const encoder = new OutboardEncoder();
  for await (const data of stream) {
    encoder.update(data);
    if (encoder.length > maxBytes) {
      throw new CastoreError(
        "resource_exhausted",
        `Cannot compute the outboard of blob ${digest}: expected at most ${maxBytes} bytes, found more`,
      );
    }
  }
  return Outboard.parse(digest, encoder.finish());
}

/**
 * Reads a part of a blob and verifies each byte against the digest of the blob before returning it. Neither the service
 * nor its chunk list is trusted, and the rest of the blob is not read.
 *
 * @returns pieces that belong to the caller; `undefined` if there is no such blob. Iterating throws CastoreError
 *   `data_loss` for wrong bytes
 * @throws CastoreError `invalid_argument` for an offset or length that is no natural number; the errors of {@link
 *   outboardOf}
 */
export async function verifiedRange(
  blobService: BlobService | (BlobService & OutboardSource),
  digest: B3Digest,
  options: ReadOptions = {},
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const { signal } = options;
  resolveRange(Number.MAX_SAFE_INTEGER, options); // before the first call
  const outboard = await outboardOf(blobService, digest, { signal });
  if (outboard === undefined) return undefined;
  const { size } = outboard;
  const { start, end } = resolveRange(size, options);
  // The length of the blob is trusted only once its last group is verified.
  const first = Math.floor(Math.min(start, Math.max(size - 1, 0)) / GROUP_BYTES);
  const offset = first * GROUP_BYTES;
  const groups = Math.max(Math.ceil(end / GROUP_BYTES) - first, 1);
  const length = Math.min(groups * GROUP_BYTES, size - offset);
  const stream = await blobService.read(digest, { offset, length, signal });
  return stream && verifyGroups(stream, outboard, { offset, length, start, end });
}

async function* verifyGroups(
  stream: AsyncIterable<Uint8Array>,
  outboard: Outboard,
  part: { offset: number; length: number; start: number; end: number },
): AsyncGenerator<Uint8Array> {
  const { offset, length, start, end } = part;
  const bufferBytes = Math.min(MAX_HASHED_BYTES, length);
  let buffer = new Uint8Array(bufferBytes);
  let at = offset;
  let filled = 0;
  const expectLength = (isWrong: boolean, found: number) => {
    if (!isWrong) return;
    const reason = `expected ${length} bytes from ${offset} on, found ${found}`;
    throw new CastoreError("data_loss", `Cannot read blob ${outboard.digest}: ${reason}`);
  };
  /** Returns the requested part of the bytes read so far, once verified. */
  const take = (): Uint8Array => {
    const data = buffer.subarray(0, filled);
    outboard.verify(data, at / GROUP_BYTES);
    const wanted = data.subarray(Math.max(start - at, 0), Math.max(end - at, 0));
    at += filled;
    filled = 0;
    buffer = new Uint8Array(bufferBytes); // the verified bytes were returned to the caller
    return wanted;
  };
  for await (const piece of stream) {
    const found = at + filled - offset + piece.length;
    expectLength(found > length, found);
    for (let from = 0; from < piece.length; ) {
      const data = piece.subarray(from, from + bufferBytes - filled);
      buffer.set(data, filled);
      filled += data.length;
      from += data.length;
      if (filled < bufferBytes) continue;
      const wanted = take();
      if (wanted.length > 0) yield wanted;
    }
  }
  expectLength(at + filled - offset < length, at + filled - offset);
  if (filled > 0 || length === 0) {
    const wanted = take();
    if (wanted.length > 0) yield wanted;
  }
}
