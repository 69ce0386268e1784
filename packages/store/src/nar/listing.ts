import {
  type AbortOptions,
  type DirectoryEntry,
  type DirectoryService,
  type Node,
  quoteBytes,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { TreeReader } from "./tree-reader.ts";
import {
  CLOSE,
  DIRECTORY,
  ENTRY,
  ENTRY_NODE,
  EXECUTABLE_FILE,
  FILE,
  MAGIC,
  NUMBER_LENGTH,
  paddingLength,
  SYMLINK,
  stringLength,
} from "./wire.ts";

/** One node of a listing. */
export type NarListingNode =
  | { readonly type: "directory"; readonly entries: Readonly<Record<string, NarListingNode>> }
  | { readonly type: "symlink"; readonly target: string }
  | {
      readonly type: "regular";
      /** Length of the contents in bytes. */
      readonly size: number;
      /** Absent if the file is not executable. */
      readonly executable?: true;
      /** Offset of the contents in the NAR, in bytes. */
      readonly narOffset: number;
    };

/** The listing of a NAR as in the `.ls` files of Nix, except that entries whose names are numbers come first. */
export interface NarListing {
  readonly version: 1;
  readonly root: NarListingNode;
}

/** A directory that is being listed. */
interface OpenDirectory {
  /** Its entries that are not listed yet. */
  readonly rest: Iterator<DirectoryEntry, undefined>;
  readonly entries: Record<string, NarListingNode>;
}

/**
 * Lists the NAR of a node. Reads the directories by one `getRecursive`, and no contents. Holds the whole listing.
 *
 * @throws StoreError `invalid_argument` for a name or target that is not UTF-8, which JSON cannot represent;
 *   `not_found` if the root directory is missing; whatever the service throws: `data_loss` if a directory below is
 *   missing
 */
export async function listNar(
  node: Node,
  directoryService: DirectoryService,
  options?: AbortOptions,
): Promise<NarListing> {
  options?.signal?.throwIfAborted();
  await using tree = new TreeReader(node, directoryService, options);
  let offset = MAGIC.length;
  const open: OpenDirectory[] = [];
  /** Lists a node, and opens it if it is a directory: its entries come next. */
  const begin = async (node: Node): Promise<NarListingNode> => {
    switch (node.type) {
      case "symlink": {
        const { length } = node.target;
        offset += SYMLINK.length + stringLength(length) + CLOSE.length;
        return { type: "symlink", target: text(node.target) };
      }
      case "file": {
        const size = Number(node.size);
        offset += (node.executable ? EXECUTABLE_FILE : FILE).length + NUMBER_LENGTH;
        const narOffset = offset;
        offset += size + paddingLength(size) + CLOSE.length;
        return { type: "regular", size, ...(node.executable && { executable: true }), narOffset };
      }
      case "directory": {
        const directory = await tree.get(node.digest);
        if (directory === undefined) {
          const what = `directory ${node.digest} is missing`;
          throw new StoreError("not_found", `Cannot list a NAR: ${what}`);
        }
        offset += DIRECTORY.length;
        const entries: Record<string, NarListingNode> = Object.create(null);
        open.push({ rest: directory.encodedEntries[Symbol.iterator](), entries });
        return { type: "directory", entries };
      }
    }
  };
  const root = await begin(node);
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const { value: entry } = top.rest.next();
    if (entry === undefined) {
      open.pop();
      offset += CLOSE.length;
      if (open.length > 0) offset += CLOSE.length; // ends the entry of the directory
      continue;
    }
    const { name, node } = entry;
    offset += ENTRY.length + stringLength(name.length) + ENTRY_NODE.length;
    top.entries[text(name)] = await begin(node);
    if (node.type !== "directory") offset += CLOSE.length;
  }
  await tree.readAll(); // the directory service checks the tree as a whole at its end
  return { version: 1, root };
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function text(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    const reason = `expected UTF-8, found ${quoteBytes(bytes)}`;
    throw new StoreError("invalid_argument", `Cannot list a NAR: ${reason}`, { cause });
  }
}
