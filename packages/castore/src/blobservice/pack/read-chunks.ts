import { closeSync, openSync, readSync } from "node:fs";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { systemError } from "../../model/system-error.ts";
import { Scratch } from "../../worker/scratch.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeChunk } from "./codec.ts";

/** Chunks to read. */
export interface ReadChunksTask {
  /** Where they are, packs by number. */
  readonly locations: readonly ChunkLocation[];
  /** The digests, one after the other. */
  readonly digests: Uint8Array;
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
  /** Whether to return contents, or payloads as they are stored. Both are verified by the digests. */
  readonly as: "contents" | "payloads";
}

/** Result of reading chunks. */
export interface ReadChunks {
  /** Contents or payload of each chunk, in memory that nobody else uses; `undefined` for a damaged or missing one. */
  readonly pieces: readonly (Uint8Array | undefined)[];
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
 * @throws CastoreError by cause if the system refuses to read
 */
export function readChunks(task: ReadChunksTask): ReadChunks {
  const { locations, digests, paths, as } = task;
  const pieces: (Uint8Array | undefined)[] = [];
  const damaged = new Map<number, "missing" | "damaged">();
  let i = 0;
  const isContents = as === "contents";
  const memory = isContents ? runMemory.take : Buffer.allocUnsafeSlow;
  for (const { location, payload } of readPayloads(locations, paths, memory)) {
    const digest = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    const target = isContents ? Buffer.allocUnsafe : chunkMemory.take;
    const contents = verified(payload, location, digest, target);
    if (!isContents) pieces.push(contents && payload);
    else pieces.push(contents === payload ? Uint8Array.from(payload) : contents);
    if (contents === undefined) {
      damaged.set(i, payload.length < location.storedSize ? "missing" : "damaged");
    }
    i += 1;
  }
  return { pieces, damaged };
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
  using packs = new Packs(paths, memory);
  for (let from = 0; from < locations.length; ) {
    const to = endOfRun(locations, from, MAX_GAP);
    const { pack, offset } = locations[from]!;
    const last = locations[to - 1]!;
    const run = packs.read(pack, offset, last.offset + last.storedSize - offset);
    for (; from < to; from++) {
      const location = locations[from]!;
      const start = location.offset - offset;
      yield { location, payload: run.subarray(start, start + location.storedSize) };
    }
  }
}

/**
 * Returns the end of the run of chunks that are read at once, gaps and all.
 *
 * @param maxGap how many bytes may be between two of them
 */
export function endOfRun(
  locations: readonly ChunkLocation[],
  from: number,
  maxGap: number,
): number {
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

/** Decodes a chunk; `undefined` if the contents do not match its digest. */
function verified(
  payload: Uint8Array<ArrayBuffer>,
  { codec, size }: ChunkLocation,
  digest: Uint8Array,
  memory: (length: number) => Uint8Array,
): Uint8Array | undefined {
  const data = decodeChunk({ codec, payload }, size, memory);
  const isWhole = data?.length === size && blake3Digest(data).equals(B3Digest.fromBytes(digest));
  return isWhole ? data : undefined;
}

/** Packs that are open while a task lasts. */
class Packs implements Disposable {
  readonly #paths: ReadonlyMap<number, string>;
  readonly #memory: Memory;
  readonly #fds = new Map<number, number>();

  constructor(paths: ReadonlyMap<number, string>, memory: Memory) {
    this.#paths = paths;
    this.#memory = memory;
  }

  /** Reads a range of a pack, or as much of it as there is: nothing if the pack does not exist. */
  read(pack: number, offset: number, length: number): Uint8Array<ArrayBuffer> {
    const path = this.#paths.get(pack)!;
    try {
      const fd = this.#fds.get(pack) ?? openSync(path, "r");
      this.#fds.set(pack, fd);
      const bytes = this.#memory(length);
      let filled = 0;
      while (filled < length) {
        const count = readSync(fd, bytes, filled, length - filled, offset + filled);
        if (count === 0) break;
        filled += count;
      }
      return bytes.subarray(0, filled);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Uint8Array(0);
      throw systemError(error, `Cannot read pack "${path}"`);
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.values()) closeSync(fd);
  }
}
