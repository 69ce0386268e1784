import type { AbortOptions } from "../bytes/abort-options.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";

/** Limits of a batch: bytes, which one longer chunk may exceed, and number of chunks. */
const BATCH_BYTES = 4 * 1024 * 1024;
const BATCH_CHUNKS = 2048;

/** Reads the chunks of a list in order and in batches; `data` is `undefined` for a chunk that cannot be read. */
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
