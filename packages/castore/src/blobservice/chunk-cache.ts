import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import type { OriginCache } from "../cache/origin-cache.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkMeta } from "./chunk-list.ts";

/** How many bytes of chunks are being stored in the local store at the same time. */
const STORING_BYTES = 16 * 1024 * 1024;

/** Chunks that are fetched by one call, and then stored. Callers that ask for one of them meanwhile join. */
interface Flight {
  readonly keys: readonly string[];
  /** Settles when the chunks have come, as far as they exist. */
  readonly fetched: Promise<void>;
  isFetched: boolean;
  /** The chunks, by key. Nobody changes their bytes: they are being stored. */
  readonly found: Map<string, Uint8Array>;
  readonly abandon: AbortController;
  waiting: number;
}

/**
 * Reads chunks from a local store, or else from an origin, and stores those of the origin in the local store.
 *
 * A chunk that several callers want is fetched once: single flight lasts until the chunk can be read from the local
 * store. Nobody waits for that. While 16 MiB are being stored, further chunks are handed out and not stored.
 */
export class ChunkCache {
  readonly #cache: OriginCache<BlobService>;
  readonly #flights = new Map<string, Flight>();
  readonly #storing = new Set<Promise<unknown>>();
  #storingBytes = 0;

  constructor(cache: OriginCache<BlobService>) {
    this.#cache = cache;
    const { closing } = cache;
    closing.addEventListener("abort", () => {
      for (const { abandon } of this.#flights.values()) abandon.abort(closing.reason);
    });
  }

  /**
   * Reads chunks, each verified by its digest. Cancelling ends the waiting; a chunk is fetched as long as anybody waits.
   *
   * @returns the bytes of each chunk, in order, which belong to the caller; `undefined` for one that is absent, damaged
   *   or of another length in both stores
   * @throws what the origin throws
   */
  async readMany(
    chunks: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    options?.signal?.throwIfAborted();
    const keys = chunks.map(keyOf);
    const fresh = new Map<string, ChunkMeta>();
    for (const [i, key] of keys.entries()) {
      if (!this.#flights.has(key)) fresh.set(key, chunks[i]!);
    }
    if (fresh.size > 0) this.#start(fresh);
    const flights = keys.map((key) => this.#flights.get(key)!);
    const joined = new Set(flights);
    for (const flight of joined) flight.waiting += 1;
    try {
      const fetched = Promise.all([...joined].map(({ fetched }) => fetched));
      await unlessAborted(fetched, options?.signal);
    } finally {
      for (const flight of joined) this.#leave(flight);
    }
    return flights.map(({ found }, i) => {
      const data = found.get(keys[i]!);
      return data && copyBytes(data);
    });
  }

  /**
   * Stores chunks in the local store, unless too many are being stored.
   *
   * @param chunks bytes that nobody changes from now on
   * @returns a promise that never rejects, once that is over
   */
  store(chunks: readonly Uint8Array[]): Promise<unknown> | undefined {
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
    const isFull = this.#storingBytes > 0 && this.#storingBytes + bytes > STORING_BYTES;
    if (chunks.length === 0 || isFull) return undefined;
    this.#storingBytes += bytes;
    const put = (near: BlobService, options: AbortOptions) => near.putMany(chunks, options);
    const stored = this.#cache
      .write("store blobs in", put, { signal: this.#cache.closing })
      .catch(() => undefined) // cancelled
      .finally(() => {
        this.#storingBytes -= bytes;
        this.#storing.delete(stored);
      });
    this.#storing.add(stored);
    this.#cache.inBackground(stored);
    return stored;
  }

  /** Waits until all chunks are stored that are being stored now. */
  async settled(): Promise<void> {
    await Promise.all(this.#storing);
  }

  #start(chunks: ReadonlyMap<string, ChunkMeta>): void {
    const found = new Map<string, Uint8Array>();
    const abandon = new AbortController();
    let stored: Promise<unknown> | undefined;
    const fetch = async () => {
      stored = this.store(await this.#fetch(chunks, found, abandon.signal));
      flight.isFetched = true;
    };
    const keys = [...chunks.keys()];
    const flight: Flight = { keys, fetched: fetch(), isFetched: false, found, abandon, waiting: 0 };
    for (const key of keys) this.#flights.set(key, flight);
    const forget = () => this.#forget(flight);
    flight.fetched.then(() => stored).then(forget, forget);
  }

  /**
   * Fetches chunks.
   *
   * @param found takes what is found
   * @returns the chunks that came from the origin
   */
  async #fetch(
    chunks: ReadonlyMap<string, ChunkMeta>,
    found: Map<string, Uint8Array>,
    signal: AbortSignal,
  ): Promise<readonly Uint8Array[]> {
    const take = (wanted: readonly ChunkMeta[], data: readonly (Uint8Array | undefined)[]) =>
      wanted.filter((chunk, i) => {
        const isRight = isChunk(data[i], chunk);
        if (isRight) found.set(keyOf(chunk), data[i]!);
        return isRight;
      });
    const wanted = [...chunks.values()];
    const read = (near: BlobService, options: AbortOptions) => near.readMany(wanted, options);
    take(wanted, (await this.#cache.read("read blobs from", read, { signal })) ?? []);
    const missing = wanted.filter((chunk) => !found.has(keyOf(chunk)));
    this.#cache.count(wanted.length - missing.length, missing.length);
    if (missing.length === 0) return [];
    const fetched = take(missing, await this.#cache.far.readMany(missing, { signal }));
    return fetched.map((chunk) => found.get(keyOf(chunk))!);
  }

  #leave(flight: Flight): void {
    flight.waiting -= 1;
    if (flight.waiting > 0 || flight.isFetched) return;
    this.#forget(flight); // at once: nobody is to join what is being abandoned
    flight.abandon.abort(new DOMException("abandoned: all readers have gone", "AbortError"));
  }

  #forget(flight: Flight): void {
    for (const key of flight.keys) if (this.#flights.get(key) === flight) this.#flights.delete(key);
  }
}

/** Whether bytes are a chunk. */
export function isChunk(data: Uint8Array | undefined, { digest, size }: ChunkMeta): boolean {
  return data?.length === size && blake3Digest(data).equals(digest);
}

function keyOf({ digest, size }: ChunkMeta): string {
  return `${digest.key} ${size}`;
}
