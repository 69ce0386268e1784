import { expect } from "vitest";
import type { BlobService } from "../src/blobservice/blob-service.ts";
import { ObjectStoreBlobService } from "../src/blobservice/objectstore/object-store-blob-service.ts";
import { collectBytes } from "../src/bytes/byte-string.ts";
import type { B3Digest } from "../src/model/digest.ts";
import { MemoryObjectStore } from "../src/objectstore/memory.ts";

/** A service on an object store, as another process would open it, and its warnings. */
export function open(store: MemoryObjectStore = new MemoryObjectStore()): {
  readonly store: MemoryObjectStore;
  readonly service: ObjectStoreBlobService;
  readonly warnings: string[];
} {
  const warnings: string[] = [];
  const service = new ObjectStoreBlobService({ store, onCorrupt: (text) => warnings.push(text) });
  return { store, service, warnings };
}

export async function readBack(service: BlobService, digest: B3Digest): Promise<Uint8Array> {
  return await collectBytes((await service.read(digest))!);
}

export const dataLoss: unknown = expect.objectContaining({
  name: "CastoreError",
  code: "data_loss",
});
