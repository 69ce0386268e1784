import type { AbortOptions } from "../bytes/abort-options.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkList } from "./chunk-list.ts";

/**
 * Returns how many bytes each chunk takes in a store, in order; `undefined` where the store does not tell.
 *
 * @throws CastoreError `data_loss` for a chunk that is absent, from stores that measure all of them at once
 */
export async function storedSizesOf(
  service: BlobService,
  chunks: ChunkList,
  options?: AbortOptions,
): Promise<readonly (number | undefined)[]> {
  if (service.storedSizes !== undefined) return await service.storedSizes(chunks, options);
  const sizes = await service.frameSizes?.(chunks, options);
  return Array.from({ length: chunks.length }, (_, i) => sizes?.[i]);
}
