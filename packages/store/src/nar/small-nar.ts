import {
  type AbortOptions,
  type BlobService,
  blake3Digest,
  collectBytes,
  Directory,
  type DirectoryEntry,
  type DirectoryService,
  encodeDirectory,
  type Node,
  type PathComponent,
} from "@tvix/castore";
import type { IngestedNar } from "./ingest.ts";
import { NarHasher } from "./nar-hasher.ts";
import { readNar } from "./reader.ts";

/** A NAR that was read into memory, and what is to be stored of it. */
export interface SmallNar extends IngestedNar {
  /** Contents of its files, in order. */
  readonly files: readonly Uint8Array[];
  /** Its directories, each after those in it. */
  readonly directories: readonly Directory[];
}

/**
 * Reads a NAR that is in memory. Nothing is stored.
 *
 * @throws StoreError `invalid_argument` for bytes that are not a NAR
 */
export async function readSmallNar(nar: Uint8Array): Promise<SmallNar> {
  const files: Uint8Array[] = [];
  const directories: Directory[] = [];
  /** The entries of each open directory, and the name of the next one. */
  const open: { readonly entries: DirectoryEntry[]; name?: PathComponent }[] = [];
  let root: Node | undefined;
  const add = (node: Node) => {
    const folder = open.at(-1);
    if (folder === undefined) root = node;
    else folder.entries.push({ name: folder.name!, node });
  };
  for await (const event of readNar(only(nar))) {
    switch (event.type) {
      case "directory":
        open.push({ entries: [] });
        break;
      case "entry":
        open.at(-1)!.name = event.name;
        break;
      case "end": {
        const directory = Directory.from(open.pop()!.entries);
        const encoded = encodeDirectory(directory);
        directories.push(directory.withEncoding(encoded));
        add({ type: "directory", digest: encoded.digest, size: directory.size });
        break;
      }
      case "symlink":
        add({ type: "symlink", target: event.target });
        break;
      case "file": {
        const { size, executable } = event;
        const contents = await collectBytes(event.contents);
        files.push(contents);
        add({ type: "file", digest: blake3Digest(contents), size: BigInt(size), executable });
      }
    }
  }
  const hasher = new NarHasher();
  hasher.update(nar);
  return { node: root!, ...hasher.digest(), files, directories };
}

/** Stores what is in a NAR. Resolves once everything is durable; its directories become visible last. */
export async function storeSmallNar(
  { files, directories }: SmallNar,
  services: { blobService: BlobService; directoryService: DirectoryService },
  options?: AbortOptions,
): Promise<void> {
  if (files.length > 0) await services.blobService.putMany(files, options);
  if (directories.length === 0) return;
  await using putter = services.directoryService.openPutter(options);
  for (const directory of directories) await putter.put(directory);
  await putter.close();
}

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
