import type { AbortOptions } from "../bytes/abort-options.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService, PutListOptions } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";
import { readListed } from "./read-listed.ts";
import { PieceHasher } from "./verify-blob.ts";

const EMPTY = blake3Digest(new Uint8Array(0));

/** The source of chunks for {@link hashListed}. */
type ChunkSource = Pick<BlobService, "readMany" | "statMany">;

/**
 * Implements `putList` for a service that cannot store a list: reads the chunks and writes them as a blob.
 *
 * @throws CastoreError as `putList`
 */
export async function putListByReading(
  service: BlobService,
  digest: B3Digest,
  chunks: ChunkList,
  options?: PutListOptions,
): Promise<void> {
  expectPlausibleList(digest, chunks);
  const signal = options?.signal;
  await using writer = service.openWriter({ signal });
  await hashListed(service, digest, chunks, { signal }, (data) => writer.write(data));
  await writer.close();
}

/**
 * Reads the chunks of a list, and verifies that they make up a blob.
 *
 * @param onData receives the contents in order, before the digest is verified. Default: none
 * @throws CastoreError `data_loss` if their digest or a length differs, `not_found` for the first chunk that is absent
 */
export async function hashListed(
  service: ChunkSource,
  digest: B3Digest,
  chunks: ChunkList,
  options?: AbortOptions,
  onData?: (data: Uint8Array) => Promise<void>,
): Promise<void> {
  using hasher = new PieceHasher();
  for await (const { chunk, data } of readListed(service, chunks, options)) {
    if (data === undefined) throw await refusal(service, digest, chunk, options);
    hasher.update(data);
    await onData?.(data);
  }
  await hasher.expect({ digest, fail: (found) => wrongList(digest, found) });
}

/** Returns the error of `putList` for chunks that make up another blob. */
export function wrongList(digest: B3Digest, found: B3Digest): CastoreError {
  return new CastoreError(
    "data_loss",
    `Cannot put blob ${digest}: the listed chunks make up blob ${found}`,
  );
}

/**
 * Checks a list without reading its chunks.
 *
 * @throws CastoreError `data_loss` for an empty list of a blob that is not empty, or a single chunk that is another
 *   blob
 */
export function expectPlausibleList(digest: B3Digest, chunks: ChunkList): void {
  if (chunks.length > 1) return;
  const only = chunks.length === 0 ? EMPTY : chunks.digestAt(0);
  if (only.equals(digest)) return;
  throw new CastoreError(
    "data_loss",
    `Cannot use a list of chunks of blob ${digest}: the listed chunks make up blob ${only}`,
  );
}

/** Finds out why a listed chunk could not be read. */
async function refusal(
  service: ChunkSource,
  digest: B3Digest,
  chunk: ChunkMeta,
  options?: AbortOptions,
): Promise<CastoreError> {
  const [found] = await service.statMany([chunk.digest], options);
  const action = `Cannot put blob ${digest}: chunk ${chunk.digest}`;
  if (found === undefined) return new CastoreError("not_found", `${action} is absent`);
  const reason =
    found.size === chunk.size
      ? "is damaged"
      : `is listed with ${chunk.size} bytes, found are ${found.size}`;
  return new CastoreError("data_loss", `${action} ${reason}`);
}
