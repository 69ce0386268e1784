import { openReader } from "../../disk/database.ts";
import { B3Digest } from "../../model/digest.ts";
import { Scratch } from "../../worker/scratch.ts";
import { ChunkIndex, indexPath } from "./chunk-index.ts";
import { packPath } from "./pack-files.ts";
import { isWholeChunk, OpenPacks } from "./read-chunks.ts";

/**
 * Reads the chunks of a pack store that is open, synchronously: for a thread that does nothing else meanwhile. Keeps the packs
 * open that it has read from.
 */
export class PackView implements Disposable {
  readonly #index: ChunkIndex;
  readonly #packs: OpenPacks;

  /**
   * @param folder the folder of the store
   * @throws CastoreError by cause if its index cannot be opened
   */
  constructor(folder: string) {
    this.#index = new ChunkIndex(openReader(indexPath(folder)));
    this.#packs = new OpenPacks((pack) => packPath(folder, pack), new Scratch().take);
  }

  /**
   * Reads a chunk, verified by its digest.
   *
   * @param digest its 32 bytes
   * @param target takes the contents: as long as they are expected to be. Its bytes mean nothing unless it returns `true`
   * @returns `false` for a chunk that is absent, damaged or of another length: reading it through the store tells which, and
   *   drops it if it is damaged
   * @throws CastoreError by cause if the system refuses to read
   */
  read(digest: Uint8Array, target: Uint8Array): boolean {
    const expected = B3Digest.fromBytes(digest);
    const location = this.#index.findChunk(expected);
    if (location?.size !== target.length) return false;
    const payload = this.#packs.read(location.pack, location.offset, location.storedSize);
    return isWholeChunk(target, location, payload, expected);
  }

  [Symbol.dispose](): void {
    this.#packs[Symbol.dispose]();
    this.#index[Symbol.dispose]();
  }
}
