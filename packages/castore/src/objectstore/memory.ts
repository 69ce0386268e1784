import type { AbortOptions } from "../bytes/abort-options.ts";
import { concatBytes, copyBytes } from "../bytes/byte-string.ts";
import { resolveRange } from "../model/range.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  GetObjectOptions,
  ListObjectsOptions,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store.ts";
import { onePiece } from "./one-piece.ts";
import { uploadEnded } from "./upload-ended.ts";

/** Keeps objects in memory: they are gone when the process ends. */
export class MemoryObjectStore implements ObjectStore {
  readonly name: string = "memory://";
  readonly #objects = new Map<string, Uint8Array>();

  async get(
    key: string,
    options?: GetObjectOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const data = this.#objects.get(key);
    if (data === undefined) return undefined;
    const { start, end } = resolveRange(data.length, options);
    return onePiece(copyBytes(data.subarray(start, end)));
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const data = this.#objects.get(key);
    return data === undefined ? undefined : { key, size: data.length };
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    if (options?.ifAbsent && this.#objects.has(key)) return false;
    this.#objects.set(key, copyBytes(data));
    return true;
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    assertObjectKey(key);
    const parts: Uint8Array[] = [];
    let closed: Promise<boolean> | undefined;
    let over = false;
    return {
      write: async (data) => {
        options?.signal?.throwIfAborted();
        if (over || closed) throw uploadEnded(key);
        parts.push(copyBytes(data));
      },
      close: () => {
        if (over) return Promise.reject(uploadEnded(key));
        closed ??= this.put(key, concatBytes(parts), options);
        return closed;
      },
      [Symbol.asyncDispose]: async () => {
        over = true;
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
      const data = this.#objects.get(key);
      if (data !== undefined) yield { key, size: data.length };
    }
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    this.#objects.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
