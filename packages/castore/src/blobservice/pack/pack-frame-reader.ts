import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { rawFrame, rawFrameLength } from "../../compression/zstd-frame.ts";
import { CastoreError } from "../../model/errors.ts";
import type { ChunkList } from "../chunk-list.ts";
import type { ChunkIndex, ChunkLocation } from "./chunk-index.ts";
import { CODEC } from "./format.ts";
import { FrameProofs } from "./frame-proofs.ts";
import type { PackReader, WantedChunk } from "./pack-reader.ts";

/** How many bytes of frames are read at a time, unless one is longer, and how many frames. */
const BATCH_BYTES = 512 * 1024;
const BATCH_FRAMES = 1024;

/** After how many look-ups other events get their turn. */
const LOOKUPS_PER_TURN = 500;

/** Frames that are being read. */
interface Batch {
  readonly wanted: readonly WantedChunk[];
  readonly read: Promise<readonly (Uint8Array | CastoreError)[]>;
  /** Why the chunk behind them cannot be read. */
  readonly failure: CastoreError | undefined;
}

/** Reads chunks as they are stored, verified, and tells beforehand how long they are. */
export class PackFrameReader {
  readonly #index: ChunkIndex;
  readonly #reader: PackReader;
  readonly #proofs = new FrameProofs();

  constructor(index: ChunkIndex, reader: PackReader) {
    this.#index = index;
    this.#reader = reader;
  }

  /** Returns the lengths of frames, as `BlobService.frameSizes` says. */
  async sizes(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array> {
    const sizes = new Uint32Array(chunks.length);
    for (let next = 0; next < chunks.length; ) {
      options?.signal?.throwIfAborted();
      const end = this.#measure(chunks, next, sizes);
      if (end === next) {
        const location = await this.#reader.find(chunks.at(next)); // tells what is wrong
        if (location instanceof CastoreError) throw location;
      } else if (end < chunks.length) {
        await yieldToEvents();
      }
      next = end;
    }
    return sizes;
  }

  /** Streams frames, as `BlobService.verifiedFrames` says. */
  async *read(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<readonly Uint8Array[]> {
    let ahead: Batch | undefined;
    try {
      for (let next = 0; ; ) {
        options?.signal?.throwIfAborted();
        const batch = ahead ?? (await this.#start(chunks, next));
        next += batch.wanted.length;
        const isLast = batch.failure !== undefined || next === chunks.length;
        ahead = isLast ? undefined : await this.#start(chunks, next);
        const frames: Uint8Array[] = [];
        for (const [i, payload] of (await batch.read).entries()) {
          if (payload instanceof CastoreError) throw payload;
          const isRaw = batch.wanted[i]!.location.codec === CODEC.raw;
          frames.push(isRaw ? rawFrame(payload) : payload);
        }
        options?.signal?.throwIfAborted();
        if (frames.length > 0) yield frames;
        if (batch.failure !== undefined) throw batch.failure;
        if (isLast) return;
      }
    } finally {
      await ahead?.read.catch(() => undefined);
    }
  }

  /** Measures frames up to one that cannot be found, the end of a turn, or that of the list. Returns where it stopped. */
  #measure(chunks: ChunkList, from: number, sizes: Uint32Array): number {
    using _ = this.#index.snapshot();
    for (let i = from; i < chunks.length; i++) {
      const { digest, size } = chunks.at(i);
      const location = this.#index.findChunk(digest);
      if (location?.size !== size) return i;
      sizes[i] = frameSize(location);
      if ((i + 1) % LOOKUPS_PER_TURN === 0) return i + 1;
    }
    return chunks.length;
  }

  /** Starts to read the next frames. */
  async #start(chunks: ChunkList, from: number): Promise<Batch> {
    const wanted: WantedChunk[] = [];
    let failure: CastoreError | undefined;
    let bytes = 0;
    for (let i = from; i < chunks.length && wanted.length < BATCH_FRAMES; i++) {
      const chunk = chunks.at(i);
      const location = await this.#reader.find(chunk);
      if (location instanceof CastoreError) {
        failure = location;
        break;
      }
      bytes += location.storedSize;
      if (bytes > BATCH_BYTES && wanted.length > 0) break;
      wanted.push({ digest: chunk.digest, location });
    }
    const read = this.#reader.readProven(wanted, this.#proofs);
    read.catch(() => undefined); // handled when its turn comes
    return { wanted, read, failure };
  }
}

function frameSize({ codec, size, storedSize }: ChunkLocation): number {
  return codec === CODEC.raw ? rawFrameLength(size) : storedSize;
}
