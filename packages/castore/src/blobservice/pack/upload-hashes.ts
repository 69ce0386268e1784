import { setTimeout as sleep } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { equalBytes } from "../../bytes/byte-string.ts";
import { type Blake3Hasher, blake3 } from "../../hash/blake3.ts";
import type { B3Digest } from "../../model/digest.ts";
import type { SlabPool } from "../../worker/slab-pool.ts";
import type { UploadPart } from "../blob-service.ts";
import type { ChunkList } from "../chunk-list.ts";
import { PieceHasher } from "../verify-blob.ts";

/** Maximum number of uploads that are hashed. The one whose last part came first makes room for another. */
const MAX_UPLOADS = 64;

/** After this long without a part an upload is given up, in milliseconds. */
const IDLE_MS = 60_000;

/** How long a part waits for those before it, in milliseconds, and how many parts of an upload do so. */
const WAIT_MS = 2_000;
const MAX_WAITING = 16;

/**
 * Hashes long blobs while their parts come. An upload that cannot be hashed, for instance because a part is missing, is given
 * up: nothing of it is lost but the hash. It holds two hashers, and contents of parts only in slabs of a pool.
 */
export class UploadHashes implements Disposable {
  readonly #slabs: SlabPool;
  /** By name in hexadecimal, the one whose last part came first at first. */
  readonly #uploads = new Map<string, Upload>();

  /** @param slabs receive contents of parts, which wait there until those before them are hashed */
  constructor(slabs: SlabPool) {
    this.#slabs = slabs;
  }

  /**
   * Resolves when all parts before this one have come, with the upload, to which the caller adds the contents at once;
   * `undefined` if the upload is not hashed. Of the parts of an upload, each enters once.
   */
  async enter(
    { upload: name, offset }: UploadPart,
    size: number,
    options?: AbortOptions,
  ): Promise<Upload | undefined> {
    const upload = this.#find(name);
    if (offset > upload.end) await upload.waitFor(offset, options);
    return upload.enter(offset, size) ? upload : undefined;
  }

  /** Ends an upload. Returns whether its parts were seen to be these chunks, and to make up the blob. */
  async prove(name: Uint8Array, digest: B3Digest, chunks: ChunkList): Promise<boolean> {
    const key = keyOf(name);
    const upload = this.#uploads.get(key);
    if (upload === undefined) return false;
    this.#uploads.delete(key);
    return await upload.prove(digest, chunks);
  }

  /** Takes back a slab of contents. */
  give(slab: SharedArrayBuffer): void {
    this.#slabs.give(slab);
  }

  [Symbol.dispose](): void {
    for (const upload of this.#uploads.values()) upload[Symbol.dispose]();
    this.#uploads.clear();
  }

  #find(name: Uint8Array): Upload {
    const key = keyOf(name);
    let upload = this.#uploads.get(key);
    this.#uploads.delete(key);
    upload ??= this.#begin(key);
    this.#uploads.set(key, upload);
    upload.touch();
    return upload;
  }

  #begin(key: string): Upload {
    if (this.#uploads.size === MAX_UPLOADS) {
      const [oldest, upload] = this.#uploads.entries().next().value!;
      this.#uploads.delete(oldest);
      upload[Symbol.dispose]();
    }
    return new Upload(this.#slabs, () => this.#uploads.delete(key));
  }
}

/** A blob that is hashed while its parts come. One that is given up stays so: further parts do not wait for what is missing. */
export class Upload implements Disposable {
  readonly #slabs: SlabPool;
  readonly #idle: NodeJS.Timeout;
  #state: { readonly contents: PieceHasher; readonly list: Blake3Hasher } | undefined = {
    contents: new PieceHasher(),
    list: blake3.createHasher(),
  };
  /** What waits for parts before it, by offset. */
  readonly #waiting = new Map<number, () => void>();
  /** Resolves when everything that was added is hashed. */
  #hashed: Promise<void> = Promise.resolve();
  /** Resolves when everything that was added has a slab, or needs none. */
  #placed: Promise<void> = Promise.resolve();
  #end = 0;

  /** @param onIdle called when no part has come for long; not once it is disposed of */
  constructor(slabs: SlabPool, onIdle: () => void) {
    this.#slabs = slabs;
    this.#idle = setTimeout(() => {
      this.#giveUp();
      onIdle();
    }, IDLE_MS).unref();
  }

  /** How many bytes of the blob have come. */
  get end(): number {
    return this.#end;
  }

  /** Notes that a part has come. */
  touch(): void {
    this.#idle.refresh();
  }

  /** Waits until everything before an offset has come. If that takes too long, the upload is given up. */
  async waitFor(offset: number, options?: AbortOptions): Promise<void> {
    if (this.#state === undefined) return;
    if (this.#waiting.size === MAX_WAITING || this.#waiting.has(offset)) return this.#giveUp();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(offset, resolve);
    const ended = new AbortController();
    const signal = options?.signal ? AbortSignal.any([options.signal, ended.signal]) : ended.signal;
    const late = sleep(WAIT_MS, undefined, { ref: false, signal }).then(
      () => this.#giveUp(),
      () => undefined, // it is over before
    );
    try {
      await Promise.race([promise, late]);
      options?.signal?.throwIfAborted();
    } finally {
      ended.abort();
      this.#waiting.delete(offset);
    }
  }

  /** Returns whether a part is the next one, which it is once. */
  enter(offset: number, size: number): boolean {
    if (this.#state === undefined || offset !== this.#end) return false;
    this.#end += size;
    this.#waiting.get(this.#end)?.();
    return true;
  }

  /**
   * Adds contents behind those that were added before.
   *
   * @param entries their chunks, packed, which nobody changes
   */
  add(entries: Uint8Array): AddedContents {
    const decoded = Promise.withResolvers<Uint8Array | undefined>();
    const hashed = Promise.all([decoded.promise, this.#hashed]).then(([contents]) => {
      if (contents === undefined) this.#giveUp();
      this.#state?.contents.update(contents!);
      this.#state?.list.update(entries);
    });
    this.#hashed = hashed;
    const placed = Promise.withResolvers<void>();
    const before = this.#placed;
    this.#placed = before.then(() => placed.promise);
    return {
      takeSlab: async (options) => {
        try {
          await before; // so that the first that is not hashed always has one
          return this.#state && (await this.#slabs.take(options));
        } finally {
          placed.resolve();
        }
      },
      end: async (contents) => {
        placed.resolve();
        decoded.resolve(contents);
        await hashed;
      },
    };
  }

  /** Ends the upload. Returns whether it was hashed, and consists of these chunks. */
  async prove(digest: B3Digest, chunks: ChunkList): Promise<boolean> {
    await this.#hashed;
    const state = this.#state;
    this.#state = undefined;
    this[Symbol.dispose]();
    if (state === undefined) return false;
    const { contents, list } = state;
    const isList = equalBytes(list.digest(), blake3.hash(chunks.bytes));
    return contents.isOf(digest) && isList;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#idle);
    this.#giveUp();
  }

  /** Frees what is held, and lets all parts go on that wait. */
  #giveUp(): void {
    this.#state?.contents[Symbol.dispose]();
    this.#state?.list.digest(); // frees it
    this.#state = undefined;
    for (const wake of this.#waiting.values()) wake();
  }
}

/** Contents of an upload that are being decoded. */
export interface AddedContents {
  /** Resolves with a slab for them, in the order of the upload; `undefined` if they are not hashed. */
  takeSlab(options?: AbortOptions): Promise<SharedArrayBuffer | undefined>;
  /**
   * Hands the contents over. Resolves when they are not used any more. Further calls change nothing.
   *
   * @param contents `undefined` if there are none: the upload is given up
   */
  end(contents?: Uint8Array): Promise<void>;
}

function keyOf(name: Uint8Array): string {
  return Buffer.from(name).toString("hex");
}
