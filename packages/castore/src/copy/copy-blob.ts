import type { BlobService } from "../blobservice/blob-service.ts";
import { readSharing } from "../blobservice/read-sharing.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";

/** Options of {@link copyBlob}. */
export interface CopyBlobOptions extends AbortOptions {
  /**
   * Takes those chunks of the blob from the target that it has, and no more than the others from the source. Pays
   * where the source is the slower one to read. Default: false, everything comes from the source.
   */
  reuseChunks?: boolean | undefined;
}

/**
 * Copies a blob to another service, unless that has it.
 *
 * @returns whether it was copied
 * @throws CastoreError `not_found` if the source does not have it, `data_loss` if it is damaged there; whatever the
 *   services throw. The target then has it no more than before
 */
export async function copyBlob(
  from: BlobService,
  to: BlobService,
  digest: B3Digest,
  options?: CopyBlobOptions,
): Promise<boolean> {
  if (await to.has(digest, options)) return false;
  await copyAbsentBlob(from, to, digest, options);
  return true;
}

/**
 * {@link copyBlob}, for a blob that the target is known to lack.
 *
 * @returns how many bytes it has
 */
export async function copyAbsentBlob(
  from: BlobService,
  to: BlobService,
  digest: B3Digest,
  options?: CopyBlobOptions,
): Promise<number> {
  const stream = options?.reuseChunks
    ? await readSharing(digest, { near: to, far: from }, options)
    : await from.read(digest, options);
  if (stream === undefined) {
    throw new CastoreError("not_found", `Cannot copy blob ${digest}: it is missing`);
  }
  await using writer = to.openWriter(options);
  let size = 0;
  for await (const data of stream) {
    await writer.write(data);
    size += data.length;
  }
  const stored = await writer.close();
  if (stored.equals(digest)) return size;
  throw new CastoreError("data_loss", `Cannot copy blob ${digest}: what was read is ${stored}`);
}
