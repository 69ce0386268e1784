import { ChunkList } from "../../blobservice/chunk-list.ts";
import { type FramedChunk, verifyFrames } from "../../blobservice/decode-frames.ts";
import { unreadableChunk } from "../../blobservice/frames.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";

/** Reads the frames of chunks from a server, one for each, in order. */
type ReadFrames = (chunks: ChunkList) => AsyncIterable<Uint8Array>;

/** How much is read and verified at a time, by the length of the contents in bytes, and how many chunks. */
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
   * Reads frames in batches: while one is with the caller, the next one is verified, and the one after that read. Each batch is a
   * call of its own, read to its end at once. A call that waited for a slow caller would keep memory of the server, and room in
   * the window of the connection, from those that others wait for, or the caller itself.
   *
   * @throws CastoreError `data_loss`, from iterating, for a frame that is not of its chunk; whatever `read` throws
   */
  async *verified(
    chunks: ChunkList,
    read: ReadFrames,
    { signal }: AbortOptions = {},
  ): AsyncGenerator<readonly Uint8Array[]> {
    const batches = this.#batches(chunks, read);
    const next = () => handledLater(batches.next());
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
    read: ReadFrames,
  ): AsyncGenerator<readonly Uint8Array[], undefined> {
    const { ENTRY_BYTES } = ChunkList;
    const batches = chunks.batches(BATCH_CHUNKS, BATCH_BYTES);
    let at = 0;
    const readNext = (): Promise<readonly FramedChunk[]> | undefined => {
      const { done, value: batch } = batches.next();
      if (done) return undefined;
      const entries = chunks.bytes.subarray(at, at + batch.length * ENTRY_BYTES);
      at += entries.length;
      const frames = Array.fromAsync(read(ChunkList.fromBytes(entries)));
      return handledLater(
        frames.then((frames) => batch.map((chunk, i) => ({ chunk, frame: frames[i]! }))),
      );
    };
    let reading = readNext();
    try {
      while (reading !== undefined) {
        const batch: readonly FramedChunk[] = await reading;
        reading = readNext();
        yield await this.#verify(batch);
      }
    } finally {
      await reading?.catch(() => undefined);
    }
    return undefined;
  }

  async #verify(batch: readonly FramedChunk[]): Promise<readonly Uint8Array[]> {
    const digests = batch.map(({ frame }) => blake3Digest(frame).key);
    const isNew = ({ chunk }: FramedChunk, i: number) =>
      this.#known.get(chunk.digest.key) !== digests[i];
    const unknown = batch.filter(isNew);
    const areWhole = unknown.length > 0 ? await verifyFrames(unknown) : [];
    for (const [i, { chunk }] of unknown.entries()) {
      if (!areWhole[i]) throw unreadableChunk(chunk.digest, "its frame is damaged");
    }
    for (const [i, { chunk }] of batch.entries()) this.#known.set(chunk.digest.key, digests[i]!);
    return batch.map(({ frame }) => frame);
  }
}

/** Returns a promise whose rejection is handled when its turn comes. */
function handledLater<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
