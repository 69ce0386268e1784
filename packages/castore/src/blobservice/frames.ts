import type { AbortOptions } from "../bytes/abort-options.ts";
import { compressToFrame } from "../compression/zstd-frame.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkList } from "./chunk-list.ts";
import { readListed } from "./read-listed.ts";

/** `frames` of a service that does not store frames: reads the chunks and compresses them. */
export async function* framesByCompressing(
  service: Pick<BlobService, "readMany">,
  chunks: ChunkList,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  for await (const { chunk, data } of readListed(service, chunks, options)) {
    if (data === undefined)
      throw unreadableChunk(chunk.digest, "it is absent, damaged or of another length");
    const frame = await compressToFrame(data);
    options?.signal?.throwIfAborted();
    yield frame;
  }
}

/** The error of `frames` for a chunk that cannot be had as it is listed. */
export function unreadableChunk(digest: B3Digest, reason: string): CastoreError {
  return new CastoreError("data_loss", `Cannot read chunk ${digest}: ${reason}`);
}
