import { setTimeout as sleep } from "node:timers/promises";
import {
  type AbortOptions,
  CastoreError,
  collectBytes,
  type GetObjectOptions,
  type ListObjectsOptions,
  type ObjectMeta,
  type ObjectStore,
  type ObjectUpload,
  type PutObjectOptions,
} from "@tvix/castore";

/** How often what goes wrong, as shares of all calls from 0 to 1. Default: never. */
export interface Faults {
  /** Calls that fail with `unavailable`, some of those that store something after they have. */
  readonly fail?: number;
  /** Calls that take some milliseconds longer. */
  readonly delay?: number;
  /** Contents that end early. */
  readonly truncate?: number;
  /** Contents of which a bit is another. */
  readonly corrupt?: number;
  /** Whether contents under a key are spared from `truncate` and `corrupt`. Default: none are. */
  readonly spares?: (key: string) => boolean;
}

/** An object store between a service and another one, of which calls go wrong, the same ones for the same seed. */
export class FaultyObjectStore implements ObjectStore {
  readonly name: string;
  readonly #store: ObjectStore;
  readonly #faults: Faults;
  #state: number;

  constructor(store: ObjectStore, faults: Faults, seed: number) {
    this.name = store.name;
    this.#store = store;
    this.#faults = faults;
    this.#state = seed;
  }

  async get(
    key: string,
    options?: GetObjectOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    await this.#call();
    const found = await this.#store.get(key, options);
    return found && (this.#faults.spares?.(key) ? found : this.#damaged(found));
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    await this.#call();
    return await this.#store.head(key, options);
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    await this.#call();
    const stored = await this.#store.put(key, data, options);
    await this.#call();
    return stored;
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const upload = this.#store.openUpload(key, options);
    return {
      write: async (data) => {
        await this.#call();
        await upload.write(data);
      },
      close: async () => {
        await this.#call();
        return await upload.close();
      },
      [Symbol.asyncDispose]: () => upload[Symbol.asyncDispose](),
    };
  }

  async *list(prefix: string, options?: ListObjectsOptions): AsyncGenerator<ObjectMeta> {
    for await (const found of this.#store.list(prefix, options)) {
      await this.#call();
      yield found;
    }
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    await this.#call();
    await this.#store.delete(key, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  async #call(): Promise<void> {
    if (this.#happens(this.#faults.delay)) await sleep(this.#random() * 5);
    if (this.#happens(this.#faults.fail)) {
      throw new CastoreError("unavailable", `Cannot reach "${this.name}": it fails on purpose`);
    }
  }

  async *#damaged(contents: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const data = Buffer.from(await collectBytes(contents));
    const end = this.#happens(this.#faults.truncate)
      ? Math.floor(this.#random() * data.length)
      : data.length;
    if (end > 0 && this.#happens(this.#faults.corrupt)) {
      const at = Math.floor(this.#random() * end);
      data[at] = data[at]! ^ (1 << Math.floor(this.#random() * 8));
    }
    if (end > 0) yield data.subarray(0, end);
  }

  #happens(share = 0): boolean {
    return this.#random() < share;
  }

  #random(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 32;
  }
}
