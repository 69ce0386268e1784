import {
  type AbortOptions,
  collectBytes,
  type DeleteObjectOptions,
  type GetObjectOptions,
  type ListObjectsOptions,
  type ObjectContents,
  type ObjectHead,
  type ObjectMeta,
  type ObjectStore,
  type ObjectUpload,
  type PutObjectOptions,
} from "@tvix/castore";
import { FaultPlan, type Faults } from "./fault-plan.ts";

/** An object store between a service and another one, of which calls go wrong, the same ones for the same seed. */
export class FaultyObjectStore implements ObjectStore {
  readonly name: string;
  readonly #store: ObjectStore;
  readonly #spares: (key: string) => boolean;
  readonly #plan: FaultPlan;

  constructor(store: ObjectStore, faults: Faults, seed: number) {
    this.name = store.name;
    this.#store = store;
    this.#spares = faults.spares ?? (() => false);
    this.#plan = new FaultPlan(faults, seed, store.name);
  }

  /** How many times something went wrong so far. */
  get faults(): number {
    return this.#plan.happened;
  }

  async get(key: string, options?: GetObjectOptions): Promise<ObjectContents | undefined> {
    await this.#plan.call();
    const found = await this.#store.get(key, options);
    if (found === undefined || this.#spares(key)) return found;
    return Object.assign(this.#damaged(found), { version: found.version });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    await this.#plan.call();
    return await this.#store.head(key, options);
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<void> {
    await this.#plan.call();
    await this.#store.put(key, data, options);
    await this.#plan.call();
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const upload = this.#store.openUpload(key, options);
    return {
      write: async (data) => {
        await this.#plan.call();
        await upload.write(data);
      },
      close: async () => {
        await this.#plan.call();
        await upload.close();
        await this.#plan.call();
      },
      [Symbol.asyncDispose]: () => upload[Symbol.asyncDispose](),
    };
  }

  async *list(prefix: string, options?: ListObjectsOptions): AsyncGenerator<ObjectMeta> {
    await this.#plan.call();
    for await (const found of this.#store.list(prefix, options)) {
      await this.#plan.call();
      yield found;
    }
  }

  async delete(key: string, options?: DeleteObjectOptions): Promise<void> {
    await this.#plan.call();
    await this.#store.delete(key, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  async *#damaged(contents: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const data = this.#plan.damaged(await collectBytes(contents));
    if (data.length > 0) yield data;
  }
}
