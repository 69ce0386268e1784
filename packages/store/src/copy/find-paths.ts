import type { AbortOptions } from "@tvix/castore";
import { quoteText, StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { StorePath } from "../nix/store-path.ts";
import type { PathMetadata } from "./store-path-source.ts";

/** How many store paths are looked up together. */
const PATHS_PER_LOOKUP = 256;

/** Where store paths are looked up. */
export interface PathLookup<Path extends PathMetadata> {
  /** Its name in messages. */
  readonly name: string;

  /** Returns what is known of store paths, by their hash parts, in order; `undefined` for one that is not there. */
  getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (Path | undefined)[]>;
}

/** Which store paths to find. */
export interface FindPathsOptions extends AbortOptions {
  /** Whether to find everything that they refer to, directly or indirectly. Default: false. */
  closure?: boolean | undefined;
  /** What they are found for, in messages. Default: "copy". */
  action?: string | undefined;
  /** Receives how many were found so far. Default: nobody. */
  onFound?: ((count: number) => void) | undefined;
}

/**
 * Finds store paths in a source. Each stands behind those that it refers to.
 *
 * @param hashParts hash parts of 20 bytes; one that stands twice counts once
 * @throws StoreError `not_found` for a store path that the source does not have, `data_loss` for references that form a
 *   cycle; whatever the source throws
 */
export async function findPaths<Path extends PathMetadata>(
  source: PathLookup<Path>,
  hashParts: readonly Uint8Array[],
  { closure = false, action = "copy", onFound, signal }: FindPathsOptions = {},
): Promise<Path[]> {
  const found = new Map<string, Path>();
  const wanted = new Map<string, Wanted>();
  for (const hashPart of hashParts) wanted.set(encodeNixbase32(hashPart), { hashPart });
  const roots = [...wanted.keys()];
  while (wanted.size > 0) {
    const batch = [...wanted].slice(0, PATHS_PER_LOOKUP);
    const parts = batch.map(([, { hashPart }]) => hashPart);
    const paths = await source.getMany(parts, { signal });
    for (const [i, [hash, want]] of batch.entries()) {
      const path = paths[i];
      if (path === undefined) throw missing(source.name, hash, want, action);
      wanted.delete(hash);
      found.set(hash, path);
      if (!closure) continue;
      for (const reference of path.references) {
        const key = encodeNixbase32(reference.hashPart);
        if (!found.has(key)) wanted.set(key, { hashPart: reference.hashPart, reference, by: path });
      }
    }
    onFound?.(found.size);
  }
  return sorted(roots, found, action);
}

/** A store path that is to be found, and what refers to it. */
interface Wanted {
  readonly hashPart: Uint8Array;
  readonly reference?: StorePath;
  readonly by?: PathMetadata;
}

function missing(
  store: string,
  hash: string,
  { reference, by }: Pick<Wanted, "reference" | "by">,
  action: string,
): StoreError {
  const referrer = by === undefined ? "" : `, to which "${by.storePath}" refers,`;
  return new StoreError(
    "not_found",
    `Cannot ${action}: expected ${quoteText(`${reference ?? hash}`)}${referrer} in ${store}, found no such store path`,
  );
}

/** Sorts store paths so that each stands behind its references, as far as these are among them. */
function sorted<Path extends PathMetadata>(
  roots: readonly string[],
  paths: ReadonlyMap<string, Path>,
  action: string,
): Path[] {
  const done = new Set<string>();
  const open = new Set<string>();
  const result: Path[] = [];
  for (const root of roots) {
    const stack = [root];
    while (stack.length > 0) {
      const hash = stack.at(-1)!;
      const path = paths.get(hash)!;
      if (done.has(hash) || open.has(hash)) {
        stack.pop();
        if (open.delete(hash)) {
          done.add(hash);
          result.push(path);
        }
        continue;
      }
      open.add(hash);
      for (const reference of path.references) {
        const key = encodeNixbase32(reference.hashPart);
        if (key === hash || done.has(key) || !paths.has(key)) continue;
        if (open.has(key)) {
          const cycle = `"${path.storePath}" and "${reference}" refer to each other`;
          throw new StoreError(
            "data_loss",
            `Cannot ${action}: expected no cycle of references, ${cycle}`,
          );
        }
        stack.push(key);
      }
    }
  }
  return result;
}
