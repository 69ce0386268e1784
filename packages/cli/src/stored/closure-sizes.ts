import { encodeNixbase32, type PathInfo } from "@tvix/store";

/** Adds up the lengths of the NARs of closures. */
export class ClosureSizes {
  readonly #paths: ReadonlyMap<string, PathInfo>;

  /** @param paths store paths with everything that they refer to */
  constructor(paths: readonly PathInfo[]) {
    this.#paths = new Map(paths.map((path) => [encodeNixbase32(path.storePath.hashPart), path]));
  }

  /** Returns the length of the NARs of a store path and of all that it refers to, directly or not, in bytes. */
  of({ storePath }: PathInfo): bigint {
    const met = new Set([encodeNixbase32(storePath.hashPart)]);
    let size = 0n;
    for (const hash of met) {
      const path = this.#paths.get(hash)!;
      size += path.narSize;
      for (const { hashPart } of path.references) met.add(encodeNixbase32(hashPart)); // comes later in the loop
    }
    return size;
  }
}
