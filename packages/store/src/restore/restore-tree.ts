import {
  type AbortOptions,
  CastoreError,
  equalBytes,
  type Node,
  readFileNode,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { describeNar } from "../nar/describe-nar.ts";
import type { CalculatedNar } from "../nar/nar-calculation-service.ts";
import { NarHasher } from "../nar/nar-hasher.ts";
import type { NarSources } from "../nar/renderer.ts";
import { TreeReader } from "../nar/tree-reader.ts";
import { type FileStep, isSmallFile, type Step, showPlace } from "../nar/walk-steps.ts";
import { writeStep } from "../nar/write-step.ts";
import { NarWriter } from "../nar/writer.ts";
import { DraftTree } from "./draft-tree.ts";
import { type StepSources, stepsAhead } from "./steps-ahead.ts";

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
  /** The NAR that the tree is registered with, which what is written is compared with. Default: it is not compared. */
  expected?: CalculatedNar | undefined;
}

/** How many bytes are read ahead, of small files and of a large one. */
const READ_AHEAD = 4 * 1024 * 1024;

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
 *   `data_loss` if one is damaged, both naming the path in the tree, or if the NAR is not the expected one; CastoreError by
 *   cause if the system refuses something
 */
export async function restoreTree(
  root: Node,
  target: string | Buffer,
  { blobService, directoryService }: NarSources,
  { signal, onProgress, expected }: RestoreOptions = {},
): Promise<void> {
  signal?.throwIfAborted();
  await using draft = new DraftTree(Buffer.from(target));
  await using tree = new TreeReader(root, directoryService, { signal });
  const restore = new Restore(draft, { blobService, tree }, { signal, onProgress, expected });
  await restore.run(root);
  await tree.readAll(); // the directory service checks the tree as a whole at its end
  signal?.throwIfAborted();
  restore.expectNar();
  draft.place();
}

/** Fills a draft with a tree. */
class Restore {
  readonly #draft: DraftTree;
  readonly #sources: StepSources;
  readonly #options: RestoreOptions;
  readonly #hasher = new NarHasher();
  /** Writes the NAR of what is restored; `undefined` if it is not compared. */
  readonly #nar: NarWriter | undefined;
  #progress: RestoreProgress = { entries: 0, bytes: 0 };

  constructor(draft: DraftTree, sources: StepSources, options: RestoreOptions) {
    this.#draft = draft;
    this.#sources = sources;
    this.#options = options;
    if (options.expected === undefined) return;
    this.#nar = new NarWriter((bytes) => this.#hasher.update(bytes));
  }

  async run(root: Node): Promise<void> {
    const { signal } = this.#options;
    /** The paths of the folders that the walk is in. */
    const folders: Buffer[] = [];
    const batches = stepsAhead(root, this.#sources, { signal, readAhead: READ_AHEAD });
    for await (const { steps, files } of batches) {
      let small = 0;
      for (const step of steps) {
        signal?.throwIfAborted();
        await this.#take(step, isSmallFile(step) ? files[small++] : undefined, folders);
      }
    }
    this.#nar?.finish();
  }

  /**
   * Takes a step of the walk.
   *
   * @param contents of a file; `undefined` if it is large or could not be read
   * @param folders the paths of those that the walk is in
   */
  async #take(step: Step, contents: Uint8Array | undefined, folders: Buffer[]): Promise<void> {
    if (step.type === "begin") return; // only where a part is walked
    if (this.#nar !== undefined) writeStep(this.#nar, step);
    if (step.type === "leave") {
      await this.#draft.finishFolder(folders.pop()!);
      return;
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
      this.#addToNar(contents);
      await this.#draft.file(path, step.file, contents);
    } else {
      await this.#draft.stream(path, step.file, this.#contents(step), (data) => {
        this.#addToNar(data);
      });
    }
    this.#advance(step.type === "file" ? Number(step.file.size) : 0);
  }

  /** @throws StoreError `data_loss` if the NAR of what was restored is not the expected one */
  expectNar(): void {
    const { expected } = this.#options;
    if (expected === undefined) return;
    const found = this.#hasher.digest();
    if (equalBytes(found.narSha256, expected.narSha256) && found.narSize === expected.narSize) {
      return;
    }
    throw new StoreError(
      "data_loss",
      `Cannot restore: expected a NAR of ${describeNar(expected)}, as it is registered, found one of ${describeNar(found)}`,
    );
  }

  #addToNar(contents: Uint8Array): void {
    if (contents.length > 0) this.#nar?.contents(contents);
  }

  async *#contents({ file, place }: FileStep): AsyncGenerator<Uint8Array> {
    const options = { signal: this.#options.signal, readAhead: READ_AHEAD };
    try {
      yield* readFileNode(this.#sources.blobService, file, options);
    } catch (error) {
      if (place === undefined || !(error instanceof CastoreError)) throw error;
      const message = `Cannot restore ${showPlace(place)}: ${error.message}`;
      throw new StoreError(error.code, message, { cause: error });
    }
  }

  #advance(bytes: number): void {
    const { entries, bytes: before } = this.#progress;
    this.#progress = { entries: entries + 1, bytes: before + bytes };
    this.#options.onProgress?.(this.#progress);
  }
}

const SLASH = Buffer.from("/");
