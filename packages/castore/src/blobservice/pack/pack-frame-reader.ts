import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { mapSome } from "../../bytes/map-some.ts";
import { contentSizeOf, rawFrame, rawFrameLength } from "../../compression/zstd-frame.ts";
import { CastoreError } from "../../model/errors.ts";
import type { StoredBlob } from "../blob-service.ts";
import type { ChunkList, ChunkMeta } from "../chunk-list.ts";
import type { ChunkIndex, ChunkLocation } from "./chunk-index.ts";
import { CODEC } from "./format.ts";
import { PackDescriptors } from "./pack-descriptors.ts";
import { packPath } from "./pack-files.ts";
import type { PackReader, WantedChunk } from "./pack-reader.ts";
import { NO_CHECKSUM, payloadChecksum } from "./payload-checksum.ts";
import { PayloadReader } from "./payload-reader.ts";

/** How many bytes of frames are read at a time, unless one is longer, and how many frames. */
const BATCH_BYTES = 512 * 1024;
const BATCH_FRAMES = 1024;

/** How many bytes all streams of frames read at a time, down to a least length for each. */
const ALL_BATCH_BYTES = 2 * 1024 * 1024;
const LEAST_BATCH_BYTES = 32 * 1024;

/** After how many look-ups other events get their turn, and how many are made ahead of a read. */
const LOOKUPS_PER_TURN = 500;
const LOOKUPS_PER_BATCH = 64;

/** Reads payloads together; gives an error for one that is damaged. */
type ReadPayloads = (
  wanted: readonly WantedChunk[],
) => Promise<readonly (Uint8Array | CastoreError)[]>;

/** Frames that are being read. */
interface Batch {
  readonly wanted: readonly WantedChunk[];
  readonly read: ReturnType<ReadPayloads>;
  /** Why the chunk behind them cannot be read. */
  readonly failure: CastoreError | undefined;
}

/** Reads chunks as they are stored, verified or not, and tells beforehand how long they are. */
export class PackFrameReader implements Disposable {
  readonly #packs: PackDescriptors;
  readonly #payloads: PayloadReader;
  readonly #index: ChunkIndex;
  readonly #reader: PackReader;
  /** How many streams of frames are open. */
  #streams = 0;

  /** @param folder the folder of the store */
  constructor(folder: string, index: ChunkIndex, reader: PackReader) {
    this.#packs = new PackDescriptors((pack) => packPath(folder, pack));
    this.#payloads = new PayloadReader(this.#packs);
    this.#index = index;
    this.#reader = reader;
  }

  /** Returns the lengths of frames, as `BlobService.frameSizes` says. */
  async sizes(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array> {
    const sizes = new Uint32Array(chunks.length);
    for (let at = 0; at < chunks.length; at += LOOKUPS_PER_TURN) {
      if (at > 0) await yieldToEvents();
      options?.signal?.throwIfAborted();
      for (const [i, found] of (await this.#locate(chunks, at, LOOKUPS_PER_TURN)).entries()) {
        if (found instanceof CastoreError) throw found;
        sizes[at + i] = frameSize(found.location);
      }
    }
    return sizes;
  }

  /** Streams frames, as `BlobService.frames` says. */
  async *stored(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const read: ReadPayloads = async (wanted) => {
      const found = await this.#payloads.read(locationsOf(wanted), Buffer.allocUnsafeSlow);
      const checked = found.map((payload, i) => {
        const fault = faultOf(payload, wanted[i]!.location);
        return fault === undefined ? payload : this.#reader.lose(wanted[i]!, fault);
      });
      return await Promise.all(checked);
    };
    for await (const frames of this.#batches(chunks, read, options)) {
      for (const frame of frames) {
        options?.signal?.throwIfAborted();
        yield frame;
      }
    }
  }

  /**
   * Reads small chunks in their stored form, and does not compare them with their digests.
   *
   * @returns each in order; `undefined` for one that is absent, of another length, or incomplete
   */
  async storedMany(chunks: readonly ChunkMeta[]): Promise<readonly (StoredBlob | undefined)[]> {
    const locations: (ChunkLocation | undefined)[] = [];
    for (let at = 0; at < chunks.length; at += LOOKUPS_PER_TURN) {
      if (at > 0) await yieldToEvents();
      const part = chunks.slice(at, at + LOOKUPS_PER_TURN);
      for (const [i, location] of this.#index
        .findChunks(part.map(({ digest }) => digest))
        .entries()) {
        locations.push(location?.size === part[i]!.size ? location : undefined);
      }
    }
    let memory: Uint8Array | undefined;
    const allocate = (length: number) => {
      memory = Buffer.allocUnsafeSlow(length);
      return memory;
    };
    const payloads = await mapSome(
      locations,
      (location) => location,
      (wanted) => this.#payloads.read(wanted, allocate, { isUrgent: true }),
    );
    return locations.map((location, i) => {
      const payload = payloads[i];
      if (location === undefined || payload === undefined) return undefined;
      if (faultOf(payload, location) !== undefined) return undefined;
      return location.codec === CODEC.raw
        ? { contents: payload, memory }
        : { frame: payload, memory };
    });
  }

  /** Streams frames, as `BlobService.verifiedFrames` says. */
  async *verified(
    chunks: ChunkList,
    options?: AbortOptions,
  ): AsyncGenerator<readonly Uint8Array[]> {
    const memory = new AlternatingMemory();
    const read: ReadPayloads = async (wanted) => {
      const locations = locationsOf(wanted);
      if (locations.every(({ checksum }) => checksum !== NO_CHECKSUM)) {
        const found = await this.#payloads.read(locations, (length) => memory.take(length));
        const isWhole = (payload: Uint8Array, i: number) =>
          payloadChecksum(payload) === locations[i]!.checksum;
        if (found.every(isWhole)) return found;
      }
      return await this.#reader.readPayloads(wanted);
    };
    yield* this.#batches(chunks, read, options);
  }

  [Symbol.dispose](): void {
    this.#packs[Symbol.dispose]();
  }

  async *#batches(
    chunks: ChunkList,
    read: ReadPayloads,
    options?: AbortOptions,
  ): AsyncGenerator<readonly Uint8Array[]> {
    const places = new Places((from) => this.#locate(chunks, from, LOOKUPS_PER_BATCH));
    let ahead: Batch | undefined;
    this.#streams += 1;
    try {
      for (let next = 0; ; ) {
        options?.signal?.throwIfAborted();
        const batch = ahead ?? (await this.#start(places, read));
        next += batch.wanted.length;
        const payloads = await batch.read; // before the next read begins
        const isLast = batch.failure !== undefined || next === chunks.length;
        ahead = isLast ? undefined : await this.#start(places, read);
        const frames: Uint8Array[] = [];
        for (const [i, payload] of payloads.entries()) {
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
      this.#streams -= 1;
      await ahead?.read.catch(() => undefined);
    }
  }

  /** How many bytes a stream reads at a time. */
  get #batchBytes(): number {
    return Math.max(LEAST_BATCH_BYTES, Math.min(BATCH_BYTES, ALL_BATCH_BYTES / this.#streams));
  }

  /** Finds consecutive chunks, up to one that cannot be read, in the place of which is an error. */
  async #locate(
    chunks: ChunkList,
    from: number,
    count: number,
  ): Promise<readonly (WantedChunk | CastoreError)[]> {
    const length = Math.min(count, chunks.length - from);
    const wanted = Array.from({ length }, (_, i) => chunks.at(from + i));
    const locations = this.#index.findChunks(wanted.map(({ digest }) => digest));
    const wrong = wanted.findIndex(({ size }, i) => locations[i]?.size !== size);
    const right = wrong < 0 ? wanted : wanted.slice(0, wrong);
    const found = right.map(({ digest }, i) => ({ digest, location: locations[i]! }));
    if (wrong < 0) return found;
    const location = await this.#reader.find(wanted[wrong]!); // forgets it
    const again = { digest: wanted[wrong]!.digest, location };
    return [...found, location instanceof CastoreError ? location : (again as WantedChunk)];
  }

  /** Starts to read the next frames. */
  async #start(places: Places, readPayloads: ReadPayloads): Promise<Batch> {
    const wanted: WantedChunk[] = [];
    const maxBytes = this.#batchBytes;
    let failure: CastoreError | undefined;
    let bytes = 0;
    while (wanted.length < BATCH_FRAMES) {
      const next = await places.peek();
      if (next === undefined) break;
      if (next instanceof CastoreError) {
        failure = next;
        break;
      }
      bytes += next.location.storedSize;
      if (bytes > maxBytes && wanted.length > 0) break;
      wanted.push(next);
      places.skip();
    }
    const read = readPayloads(wanted);
    read.catch(() => undefined); // handled when its turn comes
    return { wanted, read, failure };
  }
}

/** The locations of the chunks of a list, in order, looked up many at a time. */
class Places {
  readonly #locate: (from: number) => Promise<readonly (WantedChunk | CastoreError)[]>;
  #found: readonly (WantedChunk | CastoreError)[] = [];
  /** Position of the first that was found, among all, and of the next among those. */
  #from = 0;
  #at = 0;

  /** @param locate looks up some chunks from a position on; none behind the last */
  constructor(locate: (from: number) => Promise<readonly (WantedChunk | CastoreError)[]>) {
    this.#locate = locate;
  }

  /** Returns the next chunk, or why it cannot be read; `undefined` at the end. */
  async peek(): Promise<WantedChunk | CastoreError | undefined> {
    if (this.#at === this.#found.length) {
      this.#from += this.#at;
      this.#at = 0;
      this.#found = await this.#locate(this.#from);
    }
    return this.#found[this.#at];
  }

  /** Goes on to the one behind it. */
  skip(): void {
    this.#at += 1;
  }
}

/** Two buffers, each for every other batch: one is read into while the other is sent. */
class AlternatingMemory {
  #next = new Uint8Array(0);
  #other = new Uint8Array(0);

  /** Returns memory that nobody uses once two more batches were asked for. */
  take(length: number): Uint8Array {
    const memory = this.#next.length < length ? new Uint8Array(length) : this.#next;
    [this.#next, this.#other] = [this.#other, memory];
    return memory.subarray(0, length);
  }
}

function locationsOf(wanted: readonly WantedChunk[]): ChunkLocation[] {
  return wanted.map(({ location }) => location);
}

/** Tells what is wrong with the length of a payload, or with the length that it states; `undefined` if nothing is. */
function faultOf(
  payload: Uint8Array,
  { codec, size, storedSize }: ChunkLocation,
): "missing" | "damaged" | undefined {
  if (payload.length < storedSize) return "missing";
  const found = codec === CODEC.raw ? payload.length : contentSizeOf(payload);
  return found === size ? undefined : "damaged";
}

function frameSize({ codec, size, storedSize }: ChunkLocation): number {
  return codec === CODEC.raw ? rawFrameLength(size) : storedSize;
}
