import { type BlobService, type DirectoryService, type Node, SingleFlight } from "@tvix/castore";
import { measureNar, renderNar, SeekableNar } from "@tvix/store";
import { LRUCache } from "lru-cache";
import type { ByteRange, Content } from "./exchange.ts";
import { formatNode } from "./node-text.ts";

/** How many NARs are remembered to be whole, and for how long: damage may be found meanwhile. */
const REMEMBERED = 65_536;
const REMEMBERED_MS = 10 * 60 * 1000;

/** The NARs of stored trees. */
export class StoredNars {
  readonly #blobService: BlobService;
  readonly #directoryService: DirectoryService;
  /** Lengths of the NARs of trees that were whole, by root node. */
  readonly #sizes = new LRUCache<string, number>({ max: REMEMBERED, ttl: REMEMBERED_MS });
  readonly #measuring = new SingleFlight<number>();

  constructor(services: { blobService: BlobService; directoryService: DirectoryService }) {
    this.#blobService = services.blobService;
    this.#directoryService = services.directoryService;
  }

  /**
   * Returns the NAR of a tree, uncompressed, once the tree is known to be whole.
   *
   * @throws CastoreError `not_found` or `data_loss` if something of the tree is missing
   */
  async open(root: Node, signal: AbortSignal): Promise<Content> {
    const size = await this.#measure(root, signal);
    return {
      size,
      etag: `"${formatNode(root)}"`,
      headers: { "content-type": "application/x-nix-nar" },
      read: (range, signal) => this.#read(root, size, range, signal),
    };
  }

  async #measure(root: Node, signal: AbortSignal): Promise<number> {
    const key = formatNode(root);
    const known = this.#sizes.get(key);
    if (known !== undefined) return known;
    const measure = async (signal: AbortSignal) => {
      const size = await measureNar(root, this.#sources, { signal });
      this.#sizes.set(key, size);
      return size;
    };
    return await this.#measuring.run(key, measure, { signal });
  }

  async *#read(
    root: Node,
    size: number,
    { offset, length }: ByteRange,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    try {
      if (length === size) yield* renderNar(root, this.#sources, { signal });
      else {
        await using nar = await SeekableNar.open(root, this.#sources, { signal });
        yield* nar.read({ offset, length, signal });
      }
    } catch (error) {
      this.#sizes.delete(formatNode(root)); // it may have been damage
      throw error;
    }
  }

  get #sources(): { blobService: BlobService; directoryService: DirectoryService } {
    return { blobService: this.#blobService, directoryService: this.#directoryService };
  }
}
