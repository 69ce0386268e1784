import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  DeleteObjectOptions,
  GetObjectOptions,
  ListObjectsOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
} from "./object-store.ts";
import { contentsOf } from "./read-parts.ts";

interface StoredObject {
  readonly data: Uint8Array;
  readonly version: string;
}

/** Keeps objects in memory: they are gone when the process ends. */
export class MemoryObjectStore implements ObjectStore {
  readonly name: string = "memory://";
  readonly #objects = new Map<string, StoredObject>();
  /** How many objects were stored so far. */
  #stored = 0;

  async get(key: string, options?: GetObjectOptions): Promise<ObjectContents | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const found = this.#objects.get(key);
    if (found === undefined) return undefined;
    const { start, end } = resolveRange(found.data.length, options);
    return contentsOf(copyBytes(found.data.subarray(start, end)), found.version);
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const found = this.#objects.get(key);
    return found && { key, size: found.data.length, version: found.version };
  }

  async put(key: string, data: Uint8Array, options?: AbortOptions): Promise<void> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    this.#stored += 1;
    this.#objects.set(key, { data: copyBytes(data), version: String(this.#stored) });
  }

  openUpload(key: string, options?: AbortOptions): ObjectUpload {
    assertObjectKey(key);
    const ended = () =>
      new CastoreError("invalid_argument", `Cannot store "${key}": the upload has ended`);
    const parts: Uint8Array[] = [];
    let closed: Promise<void> | undefined;
    let isOver = false;
    return {
      write: async (data) => {
        options?.signal?.throwIfAborted();
        if (isOver || closed) throw ended();
        parts.push(copyBytes(data));
      },
      close: () => {
        if (isOver) return Promise.reject(ended());
        closed ??= this.put(key, Buffer.concat(parts), options);
        return closed;
      },
      [Symbol.asyncDispose]: async () => {
        isOver = true;
      },
    };
  }

  async *list(prefix: string, options?: ListObjectsOptions): AsyncGenerator<ObjectMeta> {
    const { after = "", signal } = options ?? {};
    signal?.throwIfAborted();
    // Keys are ASCII, of which the order of strings is that of bytes.
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix) && key > after);
    for (const key of keys.sort()) {
      signal?.throwIfAborted();
      const found = this.#objects.get(key);
      if (found !== undefined) yield { key, size: found.data.length };
    }
  }

  async delete(key: string, options: DeleteObjectOptions = {}): Promise<void> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    const { version = this.#objects.get(key)?.version } = options;
    if (this.#objects.get(key)?.version === version) this.#objects.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
