import { closeSync, openSync, readSync } from "node:fs";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { systemError } from "../../model/system-error.ts";
import { type Failure, failureOf } from "../../worker/failure.ts";
import { moved } from "../../worker/moved.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeChunk } from "./codec.ts";

/** Chunks to read. */
interface ReadChunksTask {
  /** Where they are, packs by number. */
  readonly locations: readonly ChunkLocation[];
  /** The digests, one after the other. */
  readonly digests: Uint8Array;
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
}

/** What was read of the chunks. */
interface ReadChunks {
  /** The contents, one after the other; what stands in place of one that cannot be had means nothing. */
  readonly contents: Uint8Array<ArrayBuffer>;
  /** What is wrong with chunks, by their position in the task. */
  readonly damaged: ReadonlyMap<number, "missing" | "damaged">;
  /** The system refused to read, whatever the chunks are like. */
  readonly failure?: Failure;
}

/** Chunks that stand so close together are read at once, gaps and all. */
const MAX_GAP = 16 * 1024;
const MAX_RUN = 1024 * 1024;

/** Reads, decompresses and verifies chunks. For a thread of the pool. */
export function readChunks({ locations, digests, paths }: ReadChunksTask): ReadChunks {
  const contents = new Contents(locations);
  const damaged = new Map<number, "missing" | "damaged">();
  const packs = new Packs(paths);
  let failure: Failure | undefined;
  try {
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
        const data = decodeVerified(payload, location, digest);
        if (data === undefined) {
          damaged.set(i, payload.length < location.storedSize ? "missing" : "damaged");
          continue;
        }
        contents.put(i, data);
      }
      from = to;
    }
  } catch (error) {
    failure = failureOf(error);
  } finally {
    packs[Symbol.dispose]();
  }
  const { bytes } = contents;
  return moved({ contents: bytes, damaged, ...(failure && { failure }) }, [bytes.buffer]);
}

/** The contents of chunks, one after the other. */
class Contents {
  bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  readonly #starts: number[] = [];
  readonly #length: number;

  constructor(chunks: readonly { readonly size: number }[]) {
    let length = 0;
    for (const { size } of chunks) {
      this.#starts.push(length);
      length += size;
    }
    this.#length = length;
  }

  /** Puts a chunk in its place: one that is alone, and has a buffer to itself, without a copy. */
  put(position: number, data: Uint8Array<ArrayBuffer>): void {
    const isAlone = this.#starts.length === 1 && data.buffer.byteLength === data.length;
    if (isAlone) {
      this.bytes = data;
      return;
    }
    if (this.bytes.length < this.#length) {
      this.bytes = new Uint8Array(Buffer.allocUnsafeSlow(this.#length).buffer);
    }
    this.bytes.set(data, this.#starts[position]);
  }
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

function decodeVerified(
  payload: Uint8Array<ArrayBuffer>,
  { codec, size }: ChunkLocation,
  digest: Uint8Array,
): Uint8Array<ArrayBuffer> | undefined {
  const data = decodeChunk({ codec, payload }, size);
  const isWhole = data?.length === size && blake3Digest(data).equals(B3Digest.fromBytes(digest));
  return isWhole ? data : undefined;
}

/** Packs that are open while a task lasts. */
class Packs implements Disposable {
  readonly #paths: ReadonlyMap<number, string>;
  readonly #fds = new Map<number, number>();

  constructor(paths: ReadonlyMap<number, string>) {
    this.#paths = paths;
  }

  /** As much of a range as the pack has: nothing if it does not exist. */
  read(pack: number, offset: number, length: number): Buffer<ArrayBuffer> {
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
