import type { AbortOptions } from "../bytes/abort-options.ts";
import { freeMemory } from "../bytes/free-memory.ts";
import type { BlobPlaces } from "./blob-places.ts";
import type { BlobService, FilledBuffer } from "./blob-service.ts";

/** Reads many small blobs to places in a buffer, as `BlobService.readManyInto` says, from any service. */
export async function readManyInto(
  service: BlobService,
  target: Uint8Array<ArrayBuffer>,
  blobs: BlobPlaces,
  options?: AbortOptions,
): Promise<FilledBuffer> {
  if (service.readManyInto !== undefined) {
    return await service.readManyInto(target, blobs, options);
  }
  const unread = Array.from({ length: blobs.length }, (_, i) => i);
  return { bytes: target, unread: await copyUnread(service, target, blobs, unread, options) };
}

/**
 * Copies the contents of some blobs to their places.
 *
 * @param unread which of the blobs
 * @returns those of them that could not be read
 */
export async function copyUnread(
  service: Pick<BlobService, "readMany">,
  target: Uint8Array<ArrayBuffer>,
  blobs: BlobPlaces,
  unread: readonly number[],
  options?: AbortOptions,
): Promise<readonly number[]> {
  const found = await service.readMany(
    unread.map((i) => blobs.at(i)),
    options,
  );
  const missing: number[] = [];
  for (const [at, i] of unread.entries()) {
    const contents = found[at];
    if (contents === undefined) missing.push(i);
    else blobs.placeIn(target, i).set(contents);
  }
  freeMemory(found.filter((contents) => contents !== undefined));
  return missing;
}
