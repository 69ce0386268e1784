import type { AbortOptions } from "../bytes/abort-options.ts";
import { hasCode } from "../model/errors.ts";
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
  const sizes = await frameSizesOf(service, chunks, options);
  return Array.from({ length: chunks.length }, (_, i) => sizes?.[i]);
}

async function frameSizesOf(
  service: BlobService,
  chunks: ChunkList,
  options?: AbortOptions,
): Promise<Uint32Array | undefined> {
  try {
    return await service.frameSizes?.(chunks, options);
  } catch (error) {
    if (!hasCode(error, "unimplemented")) throw error;
    return undefined; // it stands before a server that stores no frames
  }
}
