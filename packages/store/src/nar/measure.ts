import type {
  AbortOptions,
  B3Digest,
  BlobService,
  Directory,
  DirectoryService,
  FileNode,
  Node,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import type { NarSources } from "./renderer.ts";
import { NarSizes } from "./sizes.ts";
import { TreeReader } from "./tree-reader.ts";

/** How many blobs are looked up at a time. */
const BLOBS_PER_LOOKUP = 1024;

/**
 * Measures the NAR of a tree, and proves that nothing of the tree is missing: reads its directories by one
 * `getRecursive`, and looks its blobs up. No contents are read.
 *
 * @returns length of the NAR in bytes
 * @throws StoreError `not_found` if the root directory or a blob is missing, `data_loss` if a blob has another size than
 *   its node states, `invalid_argument` if the NAR would be longer than 2^53 bytes; whatever the services throw:
 *   `data_loss` if a directory below the root is missing
 */
export async function measureNar(
  root: Node,
  { blobService, directoryService }: NarSources,
  options?: AbortOptions,
): Promise<number> {
  options?.signal?.throwIfAborted();
  const blobs = new BlobCheck(blobService, options);
  if (root.type === "file") await blobs.add(root);
  await using tree = new TreeReader(root, blobs.watch(directoryService), options);
  using sizes = await NarSizes.of(root, tree);
  await tree.readAll();
  await blobs.finish();
  return sizes.total;
}

/** Looks blobs up, many at a time. */
class BlobCheck {
  readonly #blobService: BlobService;
  readonly #options: AbortOptions | undefined;
  #files: FileNode[] = [];

  constructor(blobService: BlobService, options: AbortOptions | undefined) {
    this.#blobService = blobService;
    this.#options = options;
  }

  /** Returns a directory service whose directories, as they are read, have their files added. */
  watch(inner: Pick<DirectoryService, "getRecursive">): Pick<DirectoryService, "getRecursive"> {
    const add = (directory: Directory) => this.#addAll(directory);
    return {
      async *getRecursive(digest: B3Digest, options) {
        for await (const directory of inner.getRecursive(digest, options)) {
          await add(directory);
          yield directory;
        }
      },
    };
  }

  async add(file: FileNode): Promise<void> {
    this.#files.push(file);
    if (this.#files.length >= BLOBS_PER_LOOKUP) await this.finish();
  }

  /** Looks up what was added. */
  async finish(): Promise<void> {
    const files = this.#files;
    this.#files = [];
    if (files.length === 0) return;
    const digests = files.map(({ digest }) => digest);
    const found = await this.#blobService.statMany(digests, this.#options);
    for (const [i, { digest, size }] of files.entries()) {
      const stat = found[i];
      if (stat === undefined) throw refusal("not_found", `blob ${digest} is missing`);
      if (BigInt(stat.size) === size) continue;
      throw refusal("data_loss", `blob ${digest} has ${stat.size} bytes, expected ${size}`);
    }
  }

  async #addAll(directory: Directory): Promise<void> {
    for (const { node } of directory.encodedEntries) {
      if (node.type === "file") await this.add(node);
    }
  }
}

function refusal(code: "not_found" | "data_loss", reason: string): StoreError {
  return new StoreError(code, `Cannot measure a NAR: ${reason}`);
}
