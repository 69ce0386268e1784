import { closeSync, openSync, readSync } from "node:fs";
import { B3Digest } from "../../digest.ts";
import { systemError } from "../../system-error.ts";
import { type Failure, failureOf } from "../../worker/failure.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeChunk, freeOutput } from "./codec.ts";
import { CODEC } from "./format.ts";

/** Chunks to read. */
export interface ReadChunksTask {
  /** Where they are, packs by number. */
  readonly locations: readonly ChunkLocation[];
  /** The digests, one after the other. */
  readonly digests: Uint8Array;
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
  /** Takes the contents, one after the other; what stands in place of one that cannot be had means nothing. */
  readonly slab: SharedArrayBuffer;
}

/** What was read of the chunks. */
export interface ReadChunks {
  /** What is wrong with chunks, by their position in the task. */
  readonly damaged: ReadonlyMap<number, "missing" | "damaged">;
  /** The system refused to read, whatever the chunks are like. */
  readonly failure?: Failure;
}

/** Chunks that stand so close together are read at once, gaps and all. */
const MAX_GAP = 16 * 1024;
const MAX_RUN = 1024 * 1024;

/** Reads, decompresses and verifies chunks. For a thread of the pool. */
export function readChunks(task: ReadChunksTask): ReadChunks {
  const { locations, digests } = task;
  const contents = new Uint8Array(task.slab);
  const damaged = new Map<number, "missing" | "damaged">();
  const packs = new Packs(task.paths);
  let failure: Failure | undefined;
  try {
    let at = 0;
    for (let from = 0; from < locations.length; ) {
      const to = endOfRun(locations, from);
      const { pack, offset } = locations[from]!;
      const last = locations[to - 1]!;
      const run = packs.read(pack, offset, last.offset + last.storedSize - offset);
      for (let i = from; i < to; i++) {
        const location = locations[i]!;
        const start = location.offset - offset;
        const payload = run.subarray(start, start + location.storedSize);
        const digest = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
        if (payload.length < location.storedSize) {
          damaged.set(i, "missing");
        } else if (!decodeInto(contents, at, location, payload, digest)) {
          damaged.set(i, "damaged");
        }
        at += location.size;
      }
      from = to;
    }
  } catch (error) {
    failure = failureOf(error);
  } finally {
    packs[Symbol.dispose]();
  }
  return { damaged, ...(failure && { failure }) };
}

/** The end of those chunks, from one on, that are read at once. */
function endOfRun(locations: readonly ChunkLocation[], from: number): number {
  const first = locations[from]!;
  let end = first.offset + first.storedSize;
  let to = from + 1;
  for (; to < locations.length; to++) {
    const { pack, offset, storedSize } = locations[to]!;
    const isNear = pack === first.pack && offset >= end && offset - end <= MAX_GAP;
    if (!isNear || offset + storedSize - first.offset > MAX_RUN) break;
    end = offset + storedSize;
  }
  return to;
}

function decodeInto(
  contents: Uint8Array,
  at: number,
  { codec, size }: ChunkLocation,
  payload: Uint8Array,
  digest: Uint8Array,
): boolean {
  const data = decodeChunk({ codec, payload }, size);
  if (data?.length !== size || !B3Digest.of(data).equals(B3Digest.fromBytes(digest))) return false;
  contents.set(data, at);
  if (codec !== CODEC.raw) freeOutput(data);
  return true;
}

/** Packs that are open while a task lasts. */
class Packs implements Disposable {
  readonly #paths: ReadonlyMap<number, string>;
  readonly #fds = new Map<number, number>();

  constructor(paths: ReadonlyMap<number, string>) {
    this.#paths = paths;
  }

  /** As much of a range as the pack has: nothing if it does not exist. */
  read(pack: number, offset: number, length: number): Buffer {
    const path = this.#paths.get(pack)!;
    try {
      const fd = this.#fds.get(pack) ?? openSync(path, "r");
      this.#fds.set(pack, fd);
      const bytes = Buffer.allocUnsafeSlow(length);
      let filled = 0;
      while (filled < length) {
        const count = readSync(fd, bytes, filled, length - filled, offset + filled);
        if (count === 0) break;
        filled += count;
      }
      return bytes.subarray(0, filled);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
      throw systemError(error, `Cannot read pack "${path}"`);
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.values()) closeSync(fd);
  }
}
