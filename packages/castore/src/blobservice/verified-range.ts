import type { AbortOptions } from "../bytes/abort-options.ts";
import { GROUP_BYTES, MAX_HASHED_BYTES } from "../hash/blake3-tree.ts";
import { Outboard, OutboardEncoder } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import type { BlobService, ReadOptions } from "./blob-service.ts";

/** A blob service that may get the outboards of its blobs from somewhere, so that they need not be made. */
export interface OutboardSource {
  /**
   * @returns `undefined` if there is no such blob, or nobody to get an outboard from
   * @throws CastoreError `data_loss` for one of another blob
   */
  outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined>;
}

/** Options of {@link outboardOf}. */
export interface OutboardOptions extends AbortOptions {
  /** How many bytes the outboard may have. Default: any number. */
  maxBytes?: number | undefined;
}

/**
 * The outboard of a blob: got where the service is an {@link OutboardSource} that has it, and else made, for which the
 * blob is read as a whole.
 *
 * @returns `undefined` if there is no such blob
 * @throws CastoreError `resource_exhausted` if it would be longer than `maxBytes`; what the service throws
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
      const limit = `expected one of at most ${maxBytes} bytes`;
      throw new CastoreError(
        "resource_exhausted",
        `Cannot make the outboard of blob ${digest}: ${limit}, the blob is too long`,
      );
    }
  }
  return Outboard.parse(digest, encoder.finish());
}

/**
 * Reads a part of a blob of which every byte is proven by the digest of the blob, before it is handed out, and without
 * the rest of it: also where whoever stores it, and how it is cut, is not trusted.
 *
 * @returns pieces that belong to the caller; `undefined` if there is no such blob. Iterating throws CastoreError
 *   `data_loss` for bytes that are not those of the blob
 * @throws CastoreError `invalid_argument` for an offset or length that is no natural number; what
 *   {@link outboardOf} throws
 */
export async function verifiedRange(
  blobService: BlobService | (BlobService & OutboardSource),
  digest: B3Digest,
  options: ReadOptions = {},
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const { signal } = options;
  resolveRange(Number.MAX_SAFE_INTEGER, options); // before anything is asked
  const outboard = await outboardOf(blobService, digest, { signal });
  if (outboard === undefined) return undefined;
  const { size } = outboard;
  const { start, end } = resolveRange(size, options);
  // That the blob ends before the part is believed when its last group proves it.
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
  /** What was asked for of the bytes that have come, which are verified. */
  const take = (): Uint8Array => {
    const data = buffer.subarray(0, filled);
    outboard.verify(data, at / GROUP_BYTES);
    const wanted = data.subarray(Math.max(start - at, 0), Math.max(end - at, 0));
    at += filled;
    filled = 0;
    buffer = new Uint8Array(bufferBytes); // what was verified is handed out
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
