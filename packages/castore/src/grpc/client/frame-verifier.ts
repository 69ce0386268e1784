import type { ChunkList } from "../../blobservice/chunk-list.ts";
import { type FramedChunk, verifyFrames } from "../../blobservice/decode-frames.ts";
import { unreadableChunk } from "../../blobservice/frames.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";

/** How many contents are decoded at a time to verify them, in bytes, and how many chunks. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_CHUNKS = 512;

/** How many frames are remembered, some 200 bytes each. */
const REMEMBERED = 32_768;

/**
 * Verifies frames that a server sends, by decoding them. The digest of a frame is remembered, so that the same frame is only
 * hashed the next time.
 */
export class FrameVerifier {
  /** Digests of frames, by the digests of their contents, in hexadecimal. */
  readonly #known = lruCache<string, string>(REMEMBERED);

  /**
   * Passes frames on in batches, reading one batch ahead.
   *
   * @param frames one for each chunk, in order
   * @throws CastoreError `data_loss`, from iterating, for a frame that is not of its chunk; whatever `frames` throws
   */
  async *verified(
    chunks: ChunkList,
    frames: AsyncIterable<Uint8Array>,
    { signal }: AbortOptions = {},
  ): AsyncGenerator<readonly Uint8Array[]> {
    const batches = this.#batches(chunks, frames);
    const next = () => {
      const batch = batches.next();
      batch.catch(() => undefined); // handled when its turn comes
      return batch;
    };
    let ahead = next();
    try {
      for (let batch = await ahead; !batch.done; batch = await ahead) {
        signal?.throwIfAborted();
        ahead = next();
        yield batch.value;
      }
    } finally {
      await ahead.catch(() => undefined);
      await batches.return(undefined);
    }
  }

  async *#batches(
    chunks: ChunkList,
    frames: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<readonly Uint8Array[], undefined> {
    let batch: FramedChunk[] = [];
    let bytes = 0;
    let i = 0;
    for await (const frame of frames) {
      const chunk = chunks.at(i++);
      batch.push({ chunk, frame });
      bytes += chunk.size;
      if (bytes < BATCH_BYTES && batch.length < BATCH_CHUNKS) continue;
      yield await this.#verify(batch);
      batch = [];
      bytes = 0;
    }
    if (batch.length > 0) yield await this.#verify(batch);
  }

  async #verify(batch: readonly FramedChunk[]): Promise<readonly Uint8Array[]> {
    const digests = batch.map(({ frame }) => blake3Digest(frame).hex);
    const isNew = ({ chunk }: FramedChunk, i: number) =>
      this.#known.get(chunk.digest.hex) !== digests[i];
    const unknown = batch.filter(isNew);
    const areWhole = unknown.length > 0 ? await verifyFrames(unknown) : [];
    for (const [i, { chunk }] of unknown.entries()) {
      if (!areWhole[i]) throw unreadableChunk(chunk.digest, "its frame is damaged");
    }
    for (const [i, { chunk }] of batch.entries()) this.#known.set(chunk.digest.hex, digests[i]!);
    return batch.map(({ frame }) => frame);
  }
}
