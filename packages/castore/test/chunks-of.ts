import type { BlobService } from "../src/blobservice/blob-service.ts";
import type { ChunkMeta } from "../src/blobservice/chunk-list.ts";
import type { B3Digest } from "../src/model/digest.ts";

/** How a blob is cut; `undefined` if there is none. */
export async function chunksOf(
  service: Pick<BlobService, "open">,
  digest: B3Digest,
): Promise<ChunkMeta[] | undefined> {
  await using reader = await service.open(digest);
  return reader && [...reader.chunks];
}
