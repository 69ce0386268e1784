/**
 * Finds the references of contents: store paths whose hash part, 32 characters of nixbase32, occurs anywhere in
 * their NAR. Nix finds the references of its builds in the same way.
 */
import { randomBytes } from "node:crypto";
import { instantiateWasm } from "@tvix/castore";
import { REFERENCE_SCANNER_KERNEL } from "../gen/reference-scanner-kernel.ts";
import { decodeNixbase32, encodeNixbase32, isNixbase32 } from "./nixbase32.ts";
import { expectHashPart } from "./store-path.ts";

const WORD = 32;

/** The exports of the WebAssembly module. Addresses and lengths are in bytes. */
interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly WINDOW: { readonly value: number };
  readonly WINDOW_SIZE: { readonly value: number };
  readonly IN_ALPHABET: { readonly value: number };
  readonly count: { readonly value: number };
  readonly position: { value: number };
  seed(value: bigint): void;
  add(): void;
  scan(end: number, id: number): number;
}

/**
 * A set of store paths that contents may refer to. Each takes 65 bytes of memory at most, so there may be
 * millions; the time of a scan hardly depends on how many there are.
 */
export class ReferenceCandidates {
  readonly #kernel = instantiateWasm(REFERENCE_SCANNER_KERNEL) as Kernel;
  #scans = 0;

  /** @param hashParts hash parts of store paths, 20 bytes each. Default: none, to be added */
  constructor(hashParts: Iterable<Uint8Array> = []) {
    const { memory, IN_ALPHABET } = this.#kernel;
    const inAlphabet = new Uint8Array(memory.buffer, IN_ALPHABET.value, 256);
    for (let byte = 0; byte < 256; byte++) inAlphabet[byte] = isNixbase32(byte) ? 1 : 0;
    this.#kernel.seed(randomBytes(8).readBigInt64LE() | 1n);
    for (const hashPart of hashParts) this.add(hashPart);
  }

  /** How many candidates there are. */
  get size(): number {
    return this.#kernel.count.value;
  }

  /**
   * Adds a store path by its hash part, 20 bytes. Adding it twice has no effect.
   *
   * @throws StoreError `invalid_argument` for any other length
   */
  add(hashPart: Uint8Array): void {
    expectHashPart(hashPart);
    const { memory, WINDOW } = this.#kernel;
    Buffer.from(memory.buffer, WINDOW.value).write(encodeNixbase32(hashPart), "latin1");
    this.#kernel.add();
  }

  /**
   * Begins a scan for all candidates. Several scans may run at the same time. Candidates that are added during a scan
   * are found from then on.
   */
  openScan(): ReferenceScan {
    this.#scans += 1;
    return new ReferenceScan(this.#kernel, this.#scans);
  }
}

/** A scan of bytes that arrive in pieces, see {@link ReferenceCandidates.openScan}. */
class ReferenceScan {
  readonly #kernel: Kernel;
  readonly #id: number;
  readonly #found = new Set<string>();
  /** The last bytes, which may be the beginning of a hash part. */
  readonly #carried = Buffer.alloc(WORD - 1);
  #carriedBytes = 0;

  constructor(kernel: Kernel, id: number) {
    this.#kernel = kernel;
    this.#id = id;
  }

  /** Scans the next bytes. The caller may reuse them when it returns. */
  update(bytes: Uint8Array): void {
    const { memory, WINDOW, WINDOW_SIZE } = this.#kernel;
    const window = Buffer.from(memory.buffer, WINDOW.value, WINDOW_SIZE.value);
    for (let at = 0; at < bytes.length; ) {
      window.set(this.#carried.subarray(0, this.#carriedBytes));
      const piece = bytes.subarray(at, at + window.length - this.#carriedBytes);
      window.set(piece, this.#carriedBytes);
      at += piece.length;
      this.#scanWindow(window.subarray(0, this.#carriedBytes + piece.length));
    }
  }

  /** Returns the hash parts found so far, 20 bytes each, ordered by their text. */
  found(): Uint8Array[] {
    return [...this.#found].toSorted().map(decodeNixbase32);
  }

  #scanWindow(window: Buffer): void {
    const kernel = this.#kernel;
    kernel.position.value = 0;
    while (true) {
      const word = kernel.scan(window.length, this.#id);
      if (word === 0) break;
      this.#found.add(Buffer.from(kernel.memory.buffer, word, WORD).toString("latin1"));
    }
    this.#carriedBytes = window.length - kernel.position.value;
    this.#carried.set(window.subarray(kernel.position.value));
  }
}

export type { ReferenceScan };
