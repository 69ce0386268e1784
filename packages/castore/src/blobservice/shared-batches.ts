import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkMeta } from "./chunk-list.ts";

/** A blob of some length that is being read, or was. */
interface Item {
  readonly key: string;
  readonly blob: ChunkMeta;
  batch: Batch | undefined;
  data: Uint8Array | undefined;
  /** How many there are who need the data. The last of them gets it. */
  users: number;
}

/** What is read by one call. */
interface Batch {
  readonly read: Promise<void>;
  readonly abandon: AbortController;
  isOver: boolean;
  waiting: number;
}

/**
 * Stores elsewhere what was read.
 *
 * @returns whether it went well, and so the bytes are not in use any more; `undefined` if there is no room for them
 */
type Keep = (blobs: readonly Uint8Array[]) => Promise<boolean> | undefined;

/**
 * Reads many small blobs from a service: each once for all who ask for it at the same time, and the rest of what one
 * asks for by one call. A call that nobody waits for any more is given up.
 */
export class SharedBatches {
  readonly #service: BlobService;
  readonly #keep: Keep;
  readonly #closing: AbortSignal;
  readonly #reading = new Map<string, Item>();

  /**
   * @param keep is offered whatever is read
   * @param closing ends all calls
   */
  constructor(service: BlobService, keep: Keep, closing: AbortSignal) {
    this.#service = service;
    this.#keep = keep;
    this.#closing = closing;
  }

  /**
   * @returns the contents of each blob in order, in memory of its own that is the caller's; `undefined` for one that is
   *   absent, damaged or of another length
   * @throws what the service throws for any of the calls; `signal.reason` when cancelled
   */
  async read(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    options?.signal?.throwIfAborted();
    const missing: Item[] = [];
    const items = blobs.map((blob) => {
      const key = `${blob.digest.hex} ${blob.size}`;
      let item = this.#reading.get(key);
      if (item === undefined) {
        item = { key, blob, batch: undefined, data: undefined, users: 0 };
        this.#reading.set(key, item);
        missing.push(item);
      }
      item.users += 1;
      return item;
    });
    if (missing.length > 0) this.#begin(missing);
    const batches = [...new Set(items.map(({ batch }) => batch!))];
    for (const batch of batches) batch.waiting += 1;
    try {
      await unlessAborted(Promise.all(batches.map(({ read }) => read)), options?.signal);
    } catch (error) {
      for (const item of items) item.users -= 1;
      throw error;
    } finally {
      for (const batch of batches) this.#leave(batch);
    }
    return items.map(take);
  }

  #begin(items: readonly Item[]): void {
    const abandon = new AbortController();
    const signal = AbortSignal.any([abandon.signal, this.#closing]);
    const batch: Batch = { read: this.#read(items, signal), abandon, isOver: false, waiting: 0 };
    for (const item of items) item.batch = batch;
    const over = () => {
      batch.isOver = true;
    };
    batch.read.then(over, over);
  }

  async #read(items: readonly Item[], signal: AbortSignal): Promise<void> {
    try {
      const blobs = items.map(({ blob }) => blob);
      const contents = await unlessAborted(this.#service.readMany(blobs, { signal }), signal);
      for (const [i, item] of items.entries()) {
        const data = contents[i];
        if (data !== undefined && isBlob(data, item.blob)) item.data = copyBytes(data);
      }
    } finally {
      this.#forget(items);
    }
    this.#offer(items.filter(({ data, users }) => data !== undefined && users > 0));
  }

  #offer(items: readonly Item[]): void {
    const kept = items.length > 0 ? this.#keep(items.map(({ data }) => data!)) : undefined;
    if (kept === undefined) return;
    for (const item of items) item.users += 1; // whoever asked gets a copy
  }

  #leave(batch: Batch): void {
    batch.waiting -= 1;
    if (batch.waiting > 0 || batch.isOver) return;
    // At once, so that nobody joins what is being given up.
    this.#forget([...this.#reading.values()].filter((item) => item.batch === batch));
    batch.abandon.abort(new CastoreError("aborted", "Cannot go on: nobody waits any more"));
  }

  #forget(items: readonly Item[]): void {
    for (const item of items) {
      if (this.#reading.get(item.key) === item) this.#reading.delete(item.key);
    }
  }
}

function isBlob(data: Uint8Array, { digest, size }: ChunkMeta): boolean {
  return data.length === size && blake3Digest(data).equals(digest);
}

/** What somebody gets who needs the data of an item. */
function take(item: Item): Uint8Array | undefined {
  item.users -= 1;
  return item.users > 0 && item.data !== undefined ? copyBytes(item.data) : item.data;
}
