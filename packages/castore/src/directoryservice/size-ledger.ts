import type { Directory } from "../model/directory.ts";

/** The sizes of one directory: those that references state until it is found, those that it may have from then on. */
interface Sizes {
  readonly found: boolean;
  /** One or two of them: some programs count each entry once, others twice. */
  readonly values: readonly bigint[];
}

/**
 * Compares the sizes that directories state for their sub-directories with the sizes that these have, in whatever
 * order the two come. Holds some 200 bytes a directory.
 *
 * @see {@link Directory.acceptsSize} for the two ways of counting
 */
export class SizeLedger {
  /** By digest of the directory in hexadecimal. */
  readonly #sizes = new Map<string, Sizes>();

  /** Whether a directory was found. */
  has(key: string): boolean {
    return this.#sizes.get(key)?.found ?? false;
  }

  /**
   * Notes a reference to a directory.
   *
   * @returns `first` if nothing referred to the directory before, nor was it found; `wrong` if no directory has both
   *   this size and those that are known
   */
  refer(key: string, size: bigint): "first" | "again" | "wrong" {
    const known = this.#sizes.get(key);
    if (known === undefined) {
      this.#sizes.set(key, { found: false, values: [size] });
      return "first";
    }
    if (known.values.includes(size)) return "again";
    if (known.found || known.values.length > 1) return "wrong";
    this.#sizes.set(key, { found: false, values: [...known.values, size] });
    return "again";
  }

  /**
   * Notes a directory.
   *
   * @returns the size that a reference states although the directory does not have it; `undefined` if there is none
   */
  find(key: string, directory: Directory): bigint | undefined {
    const stated = this.#sizes.get(key);
    this.#sizes.set(key, { found: true, values: [directory.size, directory.sizeOnce] });
    return stated?.values.find((size) => !directory.acceptsSize(size));
  }
}
