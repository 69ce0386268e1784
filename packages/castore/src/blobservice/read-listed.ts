import type { AbortOptions } from "../bytes/abort-options.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";

/** How many bytes of chunks are read at a time, unless one is longer, and how many chunks. */
const BATCH_BYTES = 4 * 1024 * 1024;
const BATCH_CHUNKS = 2048;

/** Reads the chunks of a list in order, several at a time; `data` is `undefined` for one that cannot be read. */
export async function* readListed(
  service: Pick<BlobService, "readMany">,
  chunks: ChunkList,
  options?: AbortOptions,
): AsyncGenerator<{ chunk: ChunkMeta; data: Uint8Array | undefined }> {
  for (const batch of chunks.batches(BATCH_CHUNKS, BATCH_BYTES)) {
    const contents = await service.readMany(batch, options);
    for (const [i, chunk] of batch.entries()) yield { chunk, data: contents[i] };
  }
}
