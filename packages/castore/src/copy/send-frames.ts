import type { BlobService } from "../blobservice/blob-service.ts";
import { ChunkList, type ChunkMeta } from "../blobservice/chunk-list.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { hasCode } from "../model/errors.ts";

/**
 * Copies chunks in the form that the source stores them in, compressed, if the target keeps them in that form. The target
 * verifies them.
 *
 * @param chunks so many as fit into one call; none of them is empty
 * @returns `false` if they have to be copied by their contents, as it is with chunks that the source lists only as a part
 *   of a blob, or has damaged: whoever reads their contents finds out
 * @throws whatever else the services throw. Some of the chunks may be stored
 */
export async function sendFrames(
  from: BlobService,
  to: BlobService,
  chunks: readonly ChunkMeta[],
  options?: AbortOptions,
): Promise<boolean> {
  if (!to.keepsFrames) return false;
  const list = ChunkList.of(chunks);
  const frames: Uint8Array[] = [];
  try {
    for await (const frame of from.frames(list, options)) frames.push(frame);
  } catch (error) {
    if (hasCode(error, "data_loss") || hasCode(error, "not_found")) return false;
    throw error;
  }
  try {
    await to.putFrames({ chunks: list, frames, blobs: [] }, options);
    return true;
  } catch (error) {
    if (hasCode(error, "invalid_argument")) return false;
    throw error;
  }
}
