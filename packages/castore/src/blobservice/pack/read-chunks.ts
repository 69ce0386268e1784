import { closeSync, openSync, readSync } from "node:fs";
import { contentSizeOf } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { systemError } from "../../model/system-error.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeChunk } from "./codec.ts";
import { CODEC } from "./format.ts";

/** Chunks to read. */
export interface ReadChunksTask {
  /** Where they are, packs by number. */
  readonly locations: readonly ChunkLocation[];
  /** The digests, one after the other. */
  readonly digests: Uint8Array;
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
  /** Whether to return verified contents, payloads as they are stored, or verified payloads. */
  readonly as: "contents" | "stored" | "proven";
  /** For proven payloads: what `proofOf` returned for each when it was verified; 0 where it never was. */
  readonly proofs?: BigUint64Array;
}

/** Result of reading chunks. */
export interface ReadChunks {
  /** Contents or payload of each chunk, in memory that nobody else uses; `undefined` for a damaged or missing one. */
  readonly pieces: readonly (Uint8Array | undefined)[];
  /** Faults of chunks, by their position in the task. */
  readonly damaged: ReadonlyMap<number, "missing" | "damaged">;
  /** For proven payloads: those of the task, with those of payloads that were verified now. */
  readonly proofs?: BigUint64Array;
}

/** Chunks that stand so close together are read at once, gaps and all. */
const MAX_GAP = 16 * 1024;
const MAX_RUN = 1024 * 1024;

/**
 * Reads chunks and verifies them, or reads them as they are stored.
 *
 * @throws CastoreError by cause if the system refuses to read
 */
export function readChunks(task: ReadChunksTask): ReadChunks {
  const { locations, digests, paths, as } = task;
  const proofs = task.proofs ?? new BigUint64Array(as === "proven" ? locations.length : 0);
  const pieces: (Uint8Array | undefined)[] = [];
  const damaged = new Map<number, "missing" | "damaged">();
  let i = 0;
  for (const { location, payload } of readPayloads(locations, paths)) {
    const digest = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    let data: Uint8Array | undefined;
    if (as === "contents") data = verified(payload, location, digest);
    else if (as === "stored") data = plausible(payload, location);
    else {
      proofs[i] = proven(payload, location, digest, proofs[i]!);
      if (proofs[i] !== 0n) data = payload;
    }
    pieces.push(data);
    if (data === undefined) {
      damaged.set(i, payload.length < location.storedSize ? "missing" : "damaged");
    }
    i += 1;
  }
  return as === "proven" ? { pieces, damaged, proofs } : { pieces, damaged };
}

/**
 * Reads the payloads of chunks, in order, those that stand close together at once. One that is missing in part is shorter than
 * its location says.
 *
 * @throws CastoreError by cause if the system refuses to read
 */
export function* readPayloads(
  locations: readonly ChunkLocation[],
  paths: ReadonlyMap<number, string>,
): Generator<{ readonly location: ChunkLocation; readonly payload: Uint8Array<ArrayBuffer> }> {
  using packs = new Packs(paths);
  for (let from = 0; from < locations.length; ) {
    const to = endOfRun(locations, from);
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

/** Returns the end of the run of chunks that are read at once. */
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

/** Decodes a chunk; `undefined` if the contents do not match its digest. */
function verified(
  payload: Uint8Array<ArrayBuffer>,
  { codec, size }: ChunkLocation,
  digest: Uint8Array,
): Uint8Array | undefined {
  const data = decodeChunk({ codec, payload }, size);
  const isWhole = data?.length === size && blake3Digest(data).equals(B3Digest.fromBytes(digest));
  return isWhole ? data : undefined;
}

/** Returns a payload; `undefined` if its length, or the length that it states, is not that of the chunk. */
function plausible(payload: Uint8Array, location: ChunkLocation): Uint8Array | undefined {
  const { codec, size, storedSize } = location;
  if (payload.length < storedSize) return undefined;
  const found = codec === CODEC.raw ? payload.length : contentSizeOf(payload);
  return found === size ? payload : undefined;
}

/**
 * Verifies a payload: by the proof of an earlier time, or by decoding it.
 *
 * @returns its proof; 0 if it is damaged
 */
function proven(
  payload: Uint8Array<ArrayBuffer>,
  location: ChunkLocation,
  digest: Uint8Array,
  proof: bigint,
): bigint {
  if (payload.length < location.storedSize) return 0n;
  const found = proofOf(payload);
  if (found === proof) return found;
  return verified(payload, location, digest) === undefined ? 0n : found;
}

/** Returns the first 64 bits of the digest of a payload, but never 0. */
function proofOf(payload: Uint8Array): bigint {
  const { buffer, byteOffset } = blake3Digest(payload).bytes;
  return new DataView(buffer, byteOffset).getBigUint64(0, true) || 1n;
}

/** Packs that are open while a task lasts. */
class Packs implements Disposable {
  readonly #paths: ReadonlyMap<number, string>;
  readonly #fds = new Map<number, number>();

  constructor(paths: ReadonlyMap<number, string>) {
    this.#paths = paths;
  }

  /** Reads a range of a pack, or as much of it as there is: nothing if the pack does not exist. */
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
