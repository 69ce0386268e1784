import { EncodedEntries } from "@tvix/castore/encoded-entries";

/** What a name stands for, as the thread of the device knows it. */
export type PackedNode =
  | { readonly type: "directory"; readonly digest: string }
  | {
      readonly type: "file";
      readonly digest: string;
      readonly size: number;
      readonly executable: boolean;
    }
  | { readonly type: "symlink"; readonly target: Buffer };

/** A {@link PackedDirectory} on its way between threads: the encoding of a directory, and where its entries begin. */
export interface PackedBytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly starts: Uint32Array<ArrayBuffer>;
}

/**
 * The entries of a folder in their encoding, each decoded when it is asked for. Digests are strings of 32 characters U+0000 to
 * U+00FF.
 */
export class PackedDirectory {
  readonly #entries: EncodedEntries;
  readonly #bytes: Buffer;

  constructor(packed: PackedBytes) {
    this.#entries = new EncodedEntries(packed);
    this.#bytes = Buffer.from(packed.bytes.buffer, packed.bytes.byteOffset, packed.bytes.length);
  }

  /** How many entries there are. */
  get length(): number {
    return this.#entries.length;
  }

  /** How much memory they take, in bytes. */
  get byteLength(): number {
    return this.#bytes.length + this.#entries.starts.byteLength;
  }

  /** Returns the name of an entry, which is a part of the directory. */
  nameAt(index: number): Buffer {
    const { nameStart, nameEnd } = this.#entries.recordAt(index);
    return this.#bytes.subarray(nameStart, nameEnd);
  }

  /** Returns the node of an entry. */
  nodeAt(index: number): PackedNode {
    const { type, valueStart, valueEnd, size, executable } = this.#entries.recordAt(index);
    if (type === "symlink") {
      const target = this.#bytes.subarray(valueStart, valueEnd);
      return { type, target: Buffer.from(target) }; // which may outlive the directory
    }
    const digest = this.#bytes.toString("latin1", valueStart, valueEnd);
    return type === "directory"
      ? { type, digest }
      : { type, digest, size: Number(size), executable };
  }

  /** Returns the size that is stated for a folder: twice the number of entries below it; `undefined` for anything else. */
  folderSizeAt(index: number): number | undefined {
    if (this.#entries.typeAt(index) !== "directory") return undefined;
    return Number(this.#entries.recordAt(index).size);
  }

  /** Returns the index of a name; -1 if there is none. */
  indexOf(name: Uint8Array): number {
    return this.#entries.indexOf(name);
  }
}
