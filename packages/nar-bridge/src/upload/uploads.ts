import type { AbortOptions, BlobService, DirectoryService } from "@tvix/castore";
import { storeSmallNar } from "@tvix/store";
import type { PushedNar } from "../pushed-nar.ts";
import type { SideObjects } from "../side-objects.ts";
import type { StoredNars } from "../stored-nars.ts";
import { endOfTurn } from "../turn-end.ts";
import { type NarName, parseNarName } from "./nar-name.ts";
import { readSmallUpload, receiveNar, type SmallUpload } from "./receive-nar.ts";

/** Longest file that is kept with its record, in bytes, and how many such NARs may be waiting to be stored. */
const KEPT_BYTES = 32 * 1024;
const MAX_STORING = 16;

/** What {@link Uploads} is made over. */
export interface UploadsOptions {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly sideObjects: SideObjects;
  readonly nars: StoredNars;
  /** Longest NAR in a compressed file, in bytes. */
  readonly maxBytes: number;
}

/**
 * The NARs that clients push.
 *
 * A client that pushes small store paths waits for each file. So the file of a small NAR is verified, and kept in its record:
 * it survives the end of this process by one write. Its contents are stored while the client prepares the narinfo, which waits
 * for them. Whoever finds a record with a file, another process or a later one, stores the contents.
 *
 * Disposing of it waits for what is being stored.
 */
export class Uploads implements AsyncDisposable {
  readonly #options: UploadsOptions;
  /** What is being stored, by file name. None of it rejects. */
  readonly #storing = new Map<string, Promise<void>>();

  constructor(options: UploadsOptions) {
    this.#options = options;
  }

  /**
   * Takes a NAR that a client pushes. It outlives this process when this resolves; after a power failure it may have to be
   * pushed again.
   *
   * @param body the file, as its name says compressed or not; all of it, or as it comes
   * @throws HttpError 400 for a file that is damaged, no NAR, or not the one of its name, 413 for one that is too long;
   *   whatever `body` and the services throw. None of its directories is visible then, blobs may be
   */
  async take(
    name: NarName,
    body: AsyncIterable<Uint8Array> | Uint8Array,
    options: AbortOptions,
  ): Promise<void> {
    const { sideObjects } = this.#options;
    const isWhole = body instanceof Uint8Array;
    const small = isWhole ? await readSmallUpload(name, body, this.#options) : undefined;
    const isKept = isWhole && body.length <= KEPT_BYTES && this.#storing.size < MAX_STORING;
    if (small !== undefined && isKept) {
      await sideObjects.putUpload(name.text, small.nar, { ...options, file: body });
      this.#storeLater(name.text, small);
      return;
    }
    const nar = small
      ? await this.#store(small, options)
      : await this.#receive(name, isWhole ? piecesOf(body) : body, options);
    await sideObjects.putUpload(name.text, nar, options);
  }

  /**
   * Returns the NAR that was pushed under a file name, such as `<hash>.nar.xz`, once its contents are stored; `undefined` if
   * there is none.
   */
  async get(fileName: string, options: AbortOptions): Promise<PushedNar | undefined> {
    await this.#storing.get(fileName);
    const { sideObjects } = this.#options;
    const found = await sideObjects.getNar(fileName, options);
    if (found?.file === undefined) return found?.nar;
    const name = parseNarName(fileName)!;
    const small = await readSmallUpload(name, found.file, this.#options).catch(() => undefined);
    if (small === undefined) return undefined; // its record is damaged
    await this.#store(small, options);
    sideObjects.noteStored(fileName, small.nar);
    return small.nar;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#storing.values());
  }

  #storeLater(fileName: string, small: SmallUpload): void {
    const { sideObjects } = this.#options;
    // Not before the client has its answer: the work takes longer than that, and is done while it prepares the narinfo.
    const storing = endOfTurn()
      .then(() => this.#store(small))
      .then(
        () => sideObjects.noteStored(fileName, small.nar),
        () => undefined, // whoever asks for it tries again, and is told
      )
      .finally(() => {
        if (this.#storing.get(fileName) === storing) this.#storing.delete(fileName);
      });
    this.#storing.set(fileName, storing);
  }

  async #store({ nar, tree }: SmallUpload, options?: AbortOptions): Promise<PushedNar> {
    await storeSmallNar(tree, this.#options, options);
    this.#options.nars.noteStored(nar.node, nar.narSize);
    return nar;
  }

  async #receive(
    name: NarName,
    body: AsyncIterable<Uint8Array>,
    options: AbortOptions,
  ): Promise<PushedNar> {
    const nar = await receiveNar(name, body, { ...this.#options, ...options });
    this.#options.nars.noteStored(nar.node, nar.narSize);
    return nar;
  }
}

async function* piecesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
