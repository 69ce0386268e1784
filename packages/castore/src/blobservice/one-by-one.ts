import pLimit from "p-limit";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { hasCode } from "../model/errors.ts";
import type { BlobService, BlobStat } from "./blob-service.ts";
import type { ChunkMeta } from "./chunk-list.ts";
import { putBlob } from "./put-blob.ts";

/** How many blobs of a batch are looked up, read or stored at the same time. */
const CONCURRENCY = 16;

/** `hasMany` of a service to which a batch is of no advantage. */
export function hasOneByOne(
  service: BlobService,
  digests: readonly B3Digest[],
  options?: AbortOptions,
): Promise<readonly boolean[]> {
  return pLimit(CONCURRENCY).map(digests, (digest) => service.has(digest, options));
}

/** `statMany` of a service to which a batch is of no advantage. */
export function statOneByOne(
  service: Pick<BlobService, "open">,
  digests: readonly B3Digest[],
  options?: AbortOptions,
): Promise<readonly (BlobStat | undefined)[]> {
  return pLimit(CONCURRENCY).map(digests, (digest) => statByOpening(service, digest, options));
}

/** Returns length and number of chunks of one blob, by opening it; `undefined` if it is absent. */
export async function statByOpening(
  service: Pick<BlobService, "open">,
  digest: B3Digest,
  options?: AbortOptions,
): Promise<BlobStat | undefined> {
  await using reader = await service.open(digest, options);
  return reader && { size: reader.size, chunks: reader.chunks.length };
}

/** `readMany` of a service to which a batch is of no advantage. */
export function readOneByOne(
  service: BlobService,
  blobs: readonly ChunkMeta[],
  options?: AbortOptions,
): Promise<readonly (Uint8Array | undefined)[]> {
  return pLimit(CONCURRENCY).map(blobs, (blob) => readWhole(service, blob, options));
}

/** `putMany` of a service to which a batch is of no advantage. */
export function putOneByOne(
  service: BlobService,
  blobs: readonly Uint8Array[],
  options?: AbortOptions,
): Promise<readonly B3Digest[]> {
  return pLimit(CONCURRENCY).map(blobs, (data) => putBlob(service, data, options));
}

/** Reads a blob of one length; `undefined` if it is absent, damaged or of another. Never holds more. */
export async function readWhole(
  service: Pick<BlobService, "read">,
  { digest, size }: ChunkMeta,
  options?: AbortOptions,
): Promise<Uint8Array | undefined> {
  try {
    const stream = await service.read(digest, options);
    if (stream === undefined) return undefined;
    const contents = new Uint8Array(size);
    let length = 0;
    for await (const part of stream) {
      if (length + part.length > size) return undefined;
      contents.set(part, length);
      length += part.length;
    }
    return length === size ? contents : undefined;
  } catch (error) {
    if (hasCode(error, "data_loss")) return undefined;
    throw error;
  }
}
