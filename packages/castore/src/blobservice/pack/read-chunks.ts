import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { Scratch } from "../../worker/scratch.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeInto } from "./codec.ts";
import type { Codec } from "./format.ts";
import { PackDescriptors } from "./pack-descriptors.ts";

/** Chunks to read. */
export interface ReadChunksTask {
  /** Where they are, as {@link packLocations} packs it. */
  readonly locations: Float64Array;
  /** The digests, one after the other. */
  readonly digests: Uint8Array;
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
  /** Whether to return contents, or payloads as they are stored. Both are verified by the digests. */
  readonly as: "contents" | "payloads";
}

/** Result of reading chunks. */
export interface ReadChunks {
  /** Contents or payloads, one after the other. */
  readonly bytes: Uint8Array;
  /** Faults of chunks, by their position in the task. */
  readonly damaged: ReadonlyMap<number, "missing" | "damaged">;
}

/** Returns memory of a length. */
type Memory = (length: number) => Uint8Array<ArrayBuffer>;

/** Memory of this thread for payloads, and for the contents of one chunk. */
const [runMemory, chunkMemory] = [new Scratch(), new Scratch()];

/** Chunks that stand so close together are read at once, gaps and all. */
const MAX_GAP = 16 * 1024;
const MAX_RUN = 1024 * 1024;

/**
 * Reads chunks and verifies them.
 *
 * @param memory returns memory for all of the bytes. Default: memory that Node.js may share with others
 * @throws CastoreError by cause if the system refuses to read
 */
export function readChunks(
  { locations: packed, digests, paths, as }: ReadChunksTask,
  memory: Memory = Buffer.allocUnsafe,
): ReadChunks {
  const locations = unpackLocations(packed);
  const isContents = as === "contents";
  const bytes = memory(locations.reduce((sum, location) => sum + lengthAs(as, location), 0));
  const damaged = new Map<number, "missing" | "damaged">();
  let [i, at] = [0, 0];
  for (const { location, payload } of readPayloads(locations, paths, runMemory.take)) {
    const piece = bytes.subarray(at, at + lengthAs(as, location));
    at += piece.length;
    const contents = isContents ? piece : chunkMemory.take(location.size);
    const bytesOfDigest = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    const digest = B3Digest.fromBytes(bytesOfDigest);
    if (isWholeChunk(contents, location, payload, digest)) {
      if (!isContents) piece.set(payload);
    } else {
      damaged.set(i, payload.length < location.storedSize ? "missing" : "damaged");
    }
    i += 1;
  }
  return { bytes, damaged };
}

/** Returns how many bytes of a {@link ReadChunks} a chunk has. */
export function lengthAs(as: ReadChunksTask["as"], { size, storedSize }: ChunkLocation): number {
  return as === "contents" ? size : storedSize;
}

/** How many numbers a location is packed into. */
const LOCATION_NUMBERS = 6;

/** Packs locations: they go to another thread in a fraction of the time. */
export function packLocations(locations: readonly ChunkLocation[]): Float64Array {
  const numbers = new Float64Array(locations.length * LOCATION_NUMBERS);
  for (const [i, location] of locations.entries()) {
    const { pack, offset, storedSize, size, codec, checksum } = location;
    numbers.set([pack, offset, storedSize, size, codec, checksum], i * LOCATION_NUMBERS);
  }
  return numbers;
}

function unpackLocations(numbers: Float64Array): ChunkLocation[] {
  const locations: ChunkLocation[] = [];
  for (let at = 0; at < numbers.length; at += LOCATION_NUMBERS) {
    const [pack, offset, storedSize, size, codec, checksum] = numbers.subarray(
      at,
      at + LOCATION_NUMBERS,
    ) as unknown as [number, number, number, number, Codec, number];
    locations.push({ pack, offset, storedSize, size, codec, checksum });
  }
  return locations;
}

/** Decodes a payload into memory as long as the chunk. Returns whether the contents match the digest. */
export function isWholeChunk(
  contents: Uint8Array,
  { codec, storedSize }: ChunkLocation,
  payload: Uint8Array,
  digest: B3Digest,
): boolean {
  if (payload.length < storedSize || !decodeInto(contents, codec, payload)) return false;
  return blake3Digest(contents).equals(digest);
}

/**
 * Reads the payloads of chunks, in order, those that stand close together at once. One that is missing in part is shorter than
 * its location says.
 *
 * @param memory returns memory for payloads that are read at once
 * @throws CastoreError by cause if the system refuses to read
 */
export function* readPayloads(
  locations: readonly ChunkLocation[],
  paths: ReadonlyMap<number, string>,
  memory: Memory,
): Generator<{ readonly location: ChunkLocation; readonly payload: Uint8Array<ArrayBuffer> }> {
  using packs = new OpenPacks((pack) => paths.get(pack)!, memory);
  for (const { pack, offset, length, chunks } of runsOf(locations, MAX_GAP)) {
    const bytes = packs.read(pack, offset, length);
    for (const location of chunks) {
      const start = location.offset - offset;
      yield { location, payload: bytes.subarray(start, start + location.storedSize) };
    }
  }
}

/** Chunks that are read at once: a range of a pack, with the gaps between them. */
export interface Run {
  readonly pack: number;
  readonly offset: number;
  readonly length: number;
  readonly chunks: readonly ChunkLocation[];
}

/**
 * Returns the runs that chunks are read in, in their order.
 *
 * @param maxGap how many bytes may be between two chunks of a run
 */
export function* runsOf(locations: readonly ChunkLocation[], maxGap: number): Generator<Run> {
  for (let from = 0; from < locations.length; ) {
    const to = endOfRun(locations, from, maxGap);
    const { pack, offset } = locations[from]!;
    const last = locations[to - 1]!;
    const length = last.offset + last.storedSize - offset;
    yield { pack, offset, length, chunks: locations.slice(from, to) };
    from = to;
  }
}

/** Returns the end of the run that begins with a chunk. */
function endOfRun(locations: readonly ChunkLocation[], from: number, maxGap: number): number {
  const first = locations[from]!;
  let end = first.offset + first.storedSize;
  let to = from + 1;
  for (; to < locations.length; to++) {
    const { pack, offset, storedSize } = locations[to]!;
    const isNear = pack === first.pack && offset >= end && offset - end <= maxGap;
    if (!isNear || offset + storedSize - first.offset > MAX_RUN) break;
    end = offset + storedSize;
  }
  return to;
}

/** Reads packs that are open. */
export class OpenPacks implements Disposable {
  readonly #descriptors: PackDescriptors;
  readonly #memory: Memory;

  /** @param memory allocates the target of one read */
  constructor(pathOf: (pack: number) => string, memory: Memory) {
    this.#descriptors = new PackDescriptors(pathOf);
    this.#memory = memory;
  }

  /**
   * Reads a range of a pack, or as much of it as there is: nothing if the pack does not exist.
   *
   * @throws CastoreError by cause if the system refuses to read
   */
  read(pack: number, offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = this.#memory(length);
    return bytes.subarray(0, this.#descriptors.readSync(pack, offset, bytes));
  }

  [Symbol.dispose](): void {
    this.#descriptors[Symbol.dispose]();
  }
}
