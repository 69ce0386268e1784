import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { BlobService } from "./blob-service.ts";

/**
 * Stores a blob that is in memory. The caller leaves the bytes alone until it resolves.
 *
 * @returns its digest, once the blob is durable
 */
export async function putBlob(
  blobService: BlobService,
  data: Uint8Array,
  options?: AbortOptions,
): Promise<B3Digest> {
  await using writer = blobService.openWriter(options);
  await writer.write(data);
  return await writer.close();
}
