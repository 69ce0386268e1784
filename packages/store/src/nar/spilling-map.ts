import type { B3Digest } from "@tvix/castore";
import type { SpillTable } from "@tvix/castore/sqlite";

/** How many bytes of memory an entry takes beside its value. */
const OVERHEAD = 150;

/** How values are written to a temporary file. */
export interface SpillCodec<Value> {
  encode(value: Value): Uint8Array;
  decode(bytes: Uint8Array, digest: B3Digest): Value;
}

/** Keeps values by digest: in memory up to a limit, and in a temporary file beyond it. */
export class SpillingMap<Value> implements Disposable {
  readonly #codec: SpillCodec<Value>;
  readonly #inMemory = new Map<string, Value>();
  #spilled: SpillTable | undefined;
  /** How many encoded bytes may still be kept in memory. */
  #room: number;

  /** @param maxBytes how many bytes are kept in memory, counted as they are encoded */
  constructor(codec: SpillCodec<Value>, maxBytes: number) {
    this.#codec = codec;
    this.#room = maxBytes;
  }

  /** Adds a value. A digest that is there keeps the value that it has. */
  async add(digest: B3Digest, value: Value): Promise<void> {
    if (this.#spilled === undefined) {
      const bytes = this.#codec.encode(value).length + OVERHEAD;
      if (bytes <= this.#room) {
        this.#room -= bytes;
        this.#inMemory.set(digest.key, value);
        return;
      }
      const { SpillTable } = await import("@tvix/castore/sqlite");
      this.#spilled = new SpillTable();
    }
    if (!this.#inMemory.has(digest.key)) this.#spilled.add(digest.bytes, this.#codec.encode(value));
  }

  /** Returns the value of a digest; `undefined` if none was added. */
  get(digest: B3Digest): Value | undefined {
    const value = this.#inMemory.get(digest.key);
    if (value !== undefined) return value;
    const bytes = this.#spilled?.get(digest.bytes);
    return bytes && this.#codec.decode(bytes, digest);
  }

  [Symbol.dispose](): void {
    this.#inMemory.clear();
    this.#spilled?.[Symbol.dispose]();
  }
}
