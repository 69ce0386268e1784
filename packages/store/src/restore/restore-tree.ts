import {
  type AbortOptions,
  CastoreError,
  type FileNode,
  type Node,
  readFileNode,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { type NarSources, type Place, showPlace, stepsAhead } from "../nar/renderer.ts";
import { TreeReader } from "../nar/tree-reader.ts";
import { DraftTree } from "./draft-tree.ts";

/** How far {@link restoreTree} is. */
export interface RestoreProgress {
  /** Folders, files and symlinks that were created. */
  readonly entries: number;
  /** How many bytes the files have. */
  readonly bytes: number;
}

/** Options of {@link restoreTree}. */
export interface RestoreOptions extends AbortOptions {
  /** Is told running totals. Default: nobody. */
  onProgress?: ((progress: RestoreProgress) => void) | undefined;
}

/** How many large files are written at the same time, and how many bytes of each are read ahead. */
const LARGE_FILES = 4;
const LARGE_READ_AHEAD = 2 * 1024 * 1024;

/** How many bytes of small files are read ahead. */
const READ_AHEAD = 4 * 1024 * 1024;

/** How many folders may wait for large files in them before they are finished. */
const MAX_UNFINISHED = 1024;

/**
 * Restores a tree to the local file system, with the permissions and times of a Nix store: files are 0444, or 0555 if they
 * may be executed, folders 0555, and everything was modified at second 1. The owner is the user of this process. The
 * target appears when all of it is complete; after a failure there is nothing. (After a crash there may be a folder
 * `.tvix-...` beside it.) Symlinks are created, never followed.
 *
 * Memory does not depend on the size of the tree, but on its depth and the widest directory.
 *
 * @param target an absolute path, as bytes where it is not UTF-8. Its folder exists
 * @throws StoreError `invalid_argument` if there is something at the target; `not_found` if a directory or blob is missing,
 *   `data_loss` if one is damaged, both naming the path in the tree; CastoreError by cause if the system refuses something
 */
export async function restoreTree(
  root: Node,
  target: string | Buffer,
  { blobService, directoryService }: NarSources,
  { signal, onProgress }: RestoreOptions = {},
): Promise<void> {
  signal?.throwIfAborted();
  await using draft = new DraftTree(Buffer.from(target));
  await using tree = new TreeReader(root, directoryService, { signal });
  await using restore = new Restore(draft, { blobService, tree }, { signal, onProgress });
  await restore.run(root);
  await tree.readAll(); // the directory service checks the tree as a whole at its end
  signal?.throwIfAborted();
  draft.place();
}

/** Fills a draft with a tree. Disposing of it waits for what is under way. */
class Restore implements AsyncDisposable {
  readonly #draft: DraftTree;
  readonly #sources: Parameters<typeof stepsAhead>[1];
  readonly #onProgress: RestoreOptions["onProgress"];
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** Large files that are being written. */
  readonly #large = new Set<Promise<void>>();
  /** Folders with everything in them but large files. */
  readonly #unfinished: Buffer[] = [];
  #progress: RestoreProgress = { entries: 0, bytes: 0 };

  constructor(
    draft: DraftTree,
    sources: Parameters<typeof stepsAhead>[1],
    { signal, onProgress }: RestoreOptions,
  ) {
    this.#draft = draft;
    this.#sources = sources;
    this.#onProgress = onProgress;
    this.#signal = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
  }

  async run(root: Node): Promise<void> {
    const options = { signal: this.#signal, readAhead: () => READ_AHEAD };
    /** The paths of the folders that the walk is in. */
    const folders: Buffer[] = [];
    for await (const { step, contents } of stepsAhead(root, this.#sources, options)) {
      this.#signal.throwIfAborted();
      if (step.type === "begin") continue; // only where a part is walked
      if (step.type === "leave") {
        await this.#leave(folders.pop()!);
        continue;
      }
      const { place } = step;
      const above = folders.at(-1);
      const path = above && place ? Buffer.concat([above, SLASH, place.name]) : this.#draft.path;
      if (step.type === "enter") {
        folders.push(path);
        await this.#draft.startFolder(path);
      } else if (step.type === "symlink") {
        await this.#draft.symlink(path, step.target);
      } else if (contents !== undefined) {
        await this.#draft.file(path, step.file, contents);
      } else {
        await this.#startLarge(path, step);
      }
      this.#advance(step.type === "file" ? Number(step.file.size) : 0);
    }
    await this.#finishFolders();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new CastoreError("aborted", "The restore has ended"));
    await Promise.allSettled(this.#large);
  }

  /** Starts to write a large file, or one that could not be read ahead, once there is room for it. */
  async #startLarge(path: Buffer, file: LargeFile): Promise<void> {
    while (this.#large.size >= LARGE_FILES) await Promise.race(this.#large);
    this.#signal.throwIfAborted();
    const contents = this.#contents(file);
    const writing = this.#draft.stream(path, file.file, contents).then(
      () => {
        this.#large.delete(writing);
      },
      (error: unknown) => {
        this.#large.delete(writing);
        this.#stop.abort(error); // the walk meets it
      },
    );
    this.#large.add(writing);
  }

  async *#contents({ file, place }: LargeFile): AsyncGenerator<Uint8Array> {
    const options = { signal: this.#signal, readAhead: LARGE_READ_AHEAD };
    try {
      yield* readFileNode(this.#sources.blobService, file, options);
    } catch (error) {
      if (place === undefined || !(error instanceof CastoreError)) throw error;
      const message = `Cannot restore ${showPlace(place)}: ${error.message}`;
      throw new StoreError(error.code, message, { cause: error });
    }
  }

  /** Finishes a folder, now or when the large files that are being written are complete. */
  async #leave(folder: Buffer): Promise<void> {
    this.#unfinished.push(folder);
    if (this.#large.size === 0 || this.#unfinished.length > MAX_UNFINISHED) {
      await this.#finishFolders();
    }
  }

  async #finishFolders(): Promise<void> {
    await Promise.all(this.#large);
    this.#signal.throwIfAborted();
    for (const folder of this.#unfinished.splice(0)) await this.#draft.finishFolder(folder);
  }

  #advance(bytes: number): void {
    const { entries, bytes: before } = this.#progress;
    this.#progress = { entries: entries + 1, bytes: before + bytes };
    this.#onProgress?.(this.#progress);
  }
}

interface LargeFile {
  readonly file: FileNode;
  readonly place: Place | undefined;
}

const SLASH = Buffer.from("/");
