import type { SymlinkTarget } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";

/**
 * Receives a tree while it is imported, in canonical order: depth first, the entries of a directory sorted bytewise by
 * name. A digest over the whole tree then takes no second reading.
 *
 * The root is one of `enterDirectory`, `file` or `symlink`. Between `enterDirectory` and
 * `leaveDirectory` each entry is `entry`, followed by what it is.
 */
export interface TreeVisitor {
  enterDirectory(): void;
  /** The name of the next entry of the directory. */
  entry(name: PathComponent): void;
  leaveDirectory(): void;
  /** A regular file; its contents follow, `size` bytes in all. */
  file(size: bigint, executable: boolean): void;
  /** Some of the contents of the file, in order. The bytes are lent until it returns. */
  contents(data: Uint8Array): void;
  symlink(target: SymlinkTarget): void;
}
