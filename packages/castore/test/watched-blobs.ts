import type { BlobService, ReadOptions } from "../src/blobservice/blob-service.ts";
import type { ChunkMeta } from "../src/blobservice/chunk-list.ts";
import { MemoryBlobService } from "../src/blobservice/memory.ts";
import type { AbortOptions } from "../src/bytes/abort-options.ts";
import { collectBytes } from "../src/bytes/byte-string.ts";
import type { B3Digest } from "../src/model/digest.ts";

/** The result of reading a chunk. */
type Give = (chunk: ChunkMeta, data: Uint8Array | undefined) => Uint8Array | undefined;

/** Notes which chunks are read from it, and how often; may give something else. */
export class WatchedBlobService extends MemoryBlobService {
  /** How often each chunk was asked for, by digest. */
  readonly asked: Map<string, number> = new Map();
  /** Changes the result. */
  give: Give = (_, data) => data;

  override async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    for (const { digest } of blobs)
      this.asked.set(digest.hex, (this.asked.get(digest.hex) ?? 0) + 1);
    const contents = await super.readMany(blobs, options);
    return contents.map((data, i) => this.give(blobs[i]!, data));
  }
}

/** Reads a blob, or a part of it; absence fails. */
export async function readBack(
  service: BlobService,
  digest: B3Digest,
  options?: ReadOptions,
): Promise<Buffer> {
  return Buffer.from(await collectBytes((await service.read(digest, options))!));
}

/** Lists the chunks of a blob. */
export async function chunksOf(service: BlobService, digest: B3Digest): Promise<ChunkMeta[]> {
  await using reader = await service.open(digest);
  return [...reader!.chunks];
}
