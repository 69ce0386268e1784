import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";
import { readChunked } from "./chunked-reader.ts";
import { readWhole } from "./one-by-one.ts";
import { verifyBlob } from "./verify-blob.ts";

/** What is asked of the service that is cheaper to read. */
export type NearReads = Pick<BlobService, "hasMany" | "read">;

/**
 * Reads a whole blob from one service, but for such chunks of it that another one, which is cheaper to read,
 * has already: of a new version of a large file, no more than what is new is fetched. Whatever the near service
 * fails to give comes from the far one.
 *
 * @returns `undefined` if `far` has no such blob. Iterating
 *   throws CastoreError `data_loss`, before the last piece, if they do not make up the blob; whatever `far`
 *   rejects with
 */
export async function readSharing(
  digest: B3Digest,
  { near, far }: { near: NearReads; far: BlobService },
  options?: AbortOptions,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  await using reader = await far.open(digest, options);
  if (reader === undefined) return undefined;
  const { chunks, size } = reader;
  const shared = chunks.length > 1 ? await sharedChunks(chunks, near, options) : new Set();
  if (shared.size === 0) return await far.read(digest, options);
  const fetch = async (chunk: ChunkMeta, options?: AbortOptions) => {
    const found = shared.has(chunk.digest.hex)
      ? await unlessFailed(readWhole(near, chunk, options), options)
      : undefined;
    const data = found ?? (await readWhole(far, chunk, options));
    if (data !== undefined) return data;
    throw new CastoreError("data_loss", `Cannot read chunk ${chunk.digest}: it is damaged or gone`);
  };
  const fail = (found: B3Digest) =>
    new CastoreError("data_loss", `Cannot read blob ${digest}: its chunks make up ${found}`);
  return verifyBlob(readChunked(chunks, fetch, options), { digest, size, fail });
}

/** The digests, in hexadecimal, of those chunks that a service has. */
async function sharedChunks(
  chunks: ChunkList,
  near: NearReads,
  options?: AbortOptions,
): Promise<ReadonlySet<string>> {
  const digests = Array.from(chunks, ({ digest }) => digest);
  const found = await unlessFailed(near.hasMany(digests, options), options);
  return new Set(digests.filter((_, i) => found?.[i]).map(({ hex }) => hex));
}

/** What a service that is only asked to save work gives; `undefined` if it fails. */
async function unlessFailed<T>(answer: Promise<T>, options?: AbortOptions): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    options?.signal?.throwIfAborted();
    if (error instanceof CastoreError) return undefined;
    throw error;
  }
}
