import { readlinkSync } from "node:fs";
import type { BlobService } from "../blobservice/blob-service.ts";
import { ContentsFileStore } from "../blobservice/contents-file-store.ts";
import type { FileBatch, FileStore, PutFileOptions } from "../blobservice/file-store.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { fileError } from "../disk/file-error.ts";
import { SourceFile } from "../disk/source-file.ts";
import { CastoreError } from "../model/errors.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";
import type { EntryFilter } from "./entry-filter.ts";
import { TreeBuilder } from "./tree-builder.ts";
import type { TreeStamp } from "./tree-stamp.ts";
import type { TreeVisitor } from "./tree-visitor.ts";
import { lstatEntry, pathBytes, TreeWalk, type WalkStep } from "./walk.ts";

/** How far an import has come. */
export interface ImportProgress {
  /** Files, symlinks and folders that were read. */
  readonly entries: number;
  /** Bytes of file contents that were read. */
  readonly bytes: number;
  /**
   * Those of the bytes that the store lacked, as far as it has told; `undefined` as long as it has told nothing. Equal
   * contents that are read close to each other may count more than once.
   */
  readonly newBytes: number | undefined;
}

/** Options of {@link importPath}. */
export interface ImportOptions extends AbortOptions {
  /** Receives everything that is read, in canonical order. Default: none. */
  visitor?: TreeVisitor;
  /** Tells which entries are left out; the root never is. Default: none. */
  exclude?: EntryFilter;
  /**
   * Level of zstd, 1 to 22, for chunks that are sent to a server; other stores have their own. Default: 1, for a server
   * that is near.
   */
  zstdLevel?: number | undefined;
  /** Receives what the file system said of each entry before its contents were read, in canonical order. Default: none. */
  stamp?: TreeStamp | undefined;
  /** Receives running totals after each entry and each piece of a large file. Default: none. */
  onProgress?: (progress: ImportProgress) => void;
}

/** Most steps of the walk, and most files, of one stretch. */
const STEPS_PER_STRETCH = 1024;
const FILES_PER_STRETCH = 256;

/** Fewest files of a stretch, whatever their sizes. */
const LEAST_FILES = 8;

/** Number of files in the first stretch, before anything is known about sizes. */
const FIRST_FILES = 48;

/** How much of a batch a stretch is to fill: most then fit, though sizes differ. */
const FILL = 0.7;

/** Most large files whose contents are not durable yet. */
const MAX_LARGE = 16;

/**
 * Stores a folder with everything below it, a file, or a symlink (which is not followed) of the local file system.
 * Each file is read once, unless the store becomes unavailable while it takes a large one. Names, contents, symlink
 * targets and the owner's right to execute a file are kept.
 *
 * When it resolves, everything is durable. When it rejects, no directory is visible; contents that were stored stay,
 * and make the next attempt faster.
 *
 * @param path as bytes where it is not UTF-8
 * @returns the root node
 * @throws CastoreError `not_found` if there is no such path; `invalid_argument` for sockets, fifos
 *   and devices; `aborted` for what changes while it is read; `permission_denied`; whatever the
 *   services throw
 */
export async function importPath(
  path: string | Buffer,
  services: { blobService: BlobService; directoryService: DirectoryService },
  options: ImportOptions = {},
): Promise<Node> {
  options.signal?.throwIfAborted();
  await using source = new FileSystemImport(services, options);
  return await source.run(Buffer.from(path));
}

/** Consecutive steps of the walk, whose small files are read together ahead of their turn. */
interface Stretch {
  readonly steps: readonly WalkStep[];
  /** Paths of its files, one character a byte. */
  readonly paths: readonly string[];
  readonly batch: Promise<FileBatch> | undefined;
}

/** Reads a tree in canonical order, small files ahead of their turn, and stores it. */
class FileSystemImport implements AsyncDisposable {
  readonly #files: FileStore;
  readonly #visitor: TreeVisitor | undefined;
  readonly #onProgress: ImportOptions["onProgress"];
  readonly #exclude: EntryFilter | undefined;
  readonly #stamp: TreeStamp | undefined;
  readonly #zstdLevel: number | undefined;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #tree: TreeBuilder;
  /** Stretches that were begun, in order. The last one may be walked just now. */
  readonly #ahead: Promise<Stretch>[] = [];
  /** Large files whose contents are not durable yet. */
  readonly #large = new Set<Promise<unknown>>();
  #filesPerStretch = FIRST_FILES;
  #entriesRead = 0;
  #bytesRead = 0;
  #newBytes: number | undefined;

  constructor(
    services: { blobService: BlobService; directoryService: DirectoryService },
    options: ImportOptions,
  ) {
    this.#visitor = options.visitor;
    this.#onProgress = options.onProgress;
    this.#exclude = options.exclude;
    this.#stamp = options.stamp;
    this.#zstdLevel = options.zstdLevel;
    const { signal } = this.#stop;
    this.#signal = options.signal ? AbortSignal.any([options.signal, signal]) : signal;
    this.#files = services.blobService.files ?? new ContentsFileStore(services.blobService);
    this.#tree = new TreeBuilder(services.directoryService, { signal: this.#signal });
  }

  async run(root: Buffer): Promise<Node> {
    const walk = new TreeWalk(root, this.#exclude);
    let last: Promise<unknown> = Promise.resolve();
    for (;;) {
      while (this.#ahead.length < this.#files.parallelism) {
        const stretch = last.then(() => this.#nextStretch(walk));
        stretch.catch(() => undefined); // awaited in its turn
        this.#ahead.push(stretch);
        last = stretch;
      }
      const stretch = await this.#ahead[0]!;
      if (stretch.steps.length === 0) break;
      await this.#take(stretch);
      this.#ahead.shift();
      await this.#tree.room();
    }
    return await this.#tree.finish();
  }

  /** Ends what is under way, and waits for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("The import ended early"));
    await Promise.allSettled(
      this.#ahead.map(async (stretch) => {
        const batch = await (await stretch).batch;
        batch?.[Symbol.dispose]();
        await batch?.stored;
      }),
    );
    await Promise.allSettled(this.#large);
    await this.#tree[Symbol.asyncDispose]();
  }

  /** Takes steps of the walk and begins to store their files. Has no steps at the end of the walk. */
  async #nextStretch(walk: TreeWalk): Promise<Stretch> {
    this.#signal.throwIfAborted();
    const steps = await walk.take({ maxSteps: STEPS_PER_STRETCH, maxFiles: this.#filesPerStretch });
    const paths = steps.filter(({ type }) => type === "file").map(({ at }) => at);
    const batch = paths.length > 0 ? this.#files.putSmall(paths, this.#putOptions()) : undefined;
    batch?.catch(() => undefined); // awaited in its turn
    return { steps, paths, batch };
  }

  async #take({ steps, paths, batch: first }: Stretch): Promise<void> {
    let batch = await first;
    this.#signal.throwIfAborted();
    try {
      // From here on: no folder is left before the files in it are durable.
      if (batch) this.#tree.waitFor(batch.stored);
      if (batch) this.#adjust(batch, paths.length);
      let [from, next] = [0, 0];
      for (const { type, name, at, stats } of steps) {
        if (type !== "leave" && name !== undefined) this.#visitor?.entry(name);
        switch (type) {
          case "enter":
            this.#stamp?.add(at, stats!);
            this.#visitor?.enterDirectory();
            this.#tree.enterDirectory(name);
            continue;
          case "leave":
            this.#visitor?.leaveDirectory();
            this.#tree.leaveDirectory();
            break;
          case "symlink": {
            this.#stamp?.add(at, stats ?? lstatEntry(at));
            const target = symlinkTarget(readTarget(pathBytes(at)));
            this.#visitor?.symlink(target);
            this.#tree.symlink(name, target);
            break;
          }
          case "file": {
            if (batch!.outcome(next - from) === "left") {
              batch![Symbol.dispose]();
              from = next;
              const options = { ...this.#putOptions(), isNext: true };
              batch = await this.#files.putSmall(paths.slice(from), options);
              this.#tree.waitFor(batch.stored);
            }
            const i = next++ - from;
            const outcome = batch!.outcome(i);
            if (outcome instanceof CastoreError) throw outcome;
            if (outcome === "large") await this.#largeFile(name, at);
            else this.#smallFile(name, at, batch!, i);
          }
        }
        if (type !== "file") this.#progress(1, 0);
      }
    } finally {
      batch?.[Symbol.dispose]();
    }
  }

  /** Learns from a batch how many files fit into one. */
  #adjust(batch: FileBatch, files: number): void {
    let [read, bytes] = [0, 0];
    for (let i = 0; i < files; i++) {
      if (batch.outcome(i) !== "read") continue;
      read += 1;
      bytes += batch.size(i);
    }
    if (read === 0) return;
    const fitting = Math.floor((FILL * this.#files.batchBytes) / (bytes / read + 1));
    this.#filesPerStretch = Math.min(Math.max(fitting, LEAST_FILES), FILES_PER_STRETCH);
  }

  #smallFile(name: PathComponent | undefined, at: string, batch: FileBatch, i: number): void {
    this.#stamp?.add(at, batch.state(i));
    const size = batch.size(i);
    const isExecutable = batch.isExecutable(i);
    this.#visitor?.file(BigInt(size), isExecutable);
    if (size > 0) this.#visitor?.contents(batch.contents(i));
    this.#tree.file(name, batch.digest(i), size, isExecutable);
    this.#progress(1, size);
  }

  async #largeFile(name: PathComponent | undefined, at: string): Promise<void> {
    while (this.#large.size >= MAX_LARGE) await Promise.race(this.#large);
    const file = await SourceFile.open(pathBytes(at));
    const { size, executable, state } = file;
    this.#stamp?.add(at, state);
    this.#visitor?.file(BigInt(size), executable);
    const large = await this.#files.putLarge(file, this.#putOptions());
    for await (const data of large.pieces()) {
      this.#visitor?.contents(data);
      this.#progress(0, data.length);
      this.#signal.throwIfAborted();
    }
    const { digest, stored } = large.finish();
    // Not awaited: the next file is read while this one becomes durable.
    const settled: Promise<unknown> = stored
      .catch(() => undefined)
      .finally(() => this.#large.delete(settled));
    this.#large.add(settled);
    this.#tree.waitFor(stored);
    this.#tree.file(name, digest.bytes, size, executable);
    this.#progress(1, 0);
  }

  #putOptions(): PutFileOptions {
    return {
      signal: this.#signal,
      onNewBytes: this.#onNewBytes,
      zstdLevel: this.#zstdLevel,
    };
  }

  readonly #onNewBytes = (bytes: number): void => {
    this.#newBytes = (this.#newBytes ?? 0) + bytes;
    this.#progress(0, 0);
  };

  #progress(entries: number, bytes: number): void {
    this.#entriesRead += entries;
    this.#bytesRead += bytes;
    this.#onProgress?.({
      entries: this.#entriesRead,
      bytes: this.#bytesRead,
      newBytes: this.#newBytes,
    });
  }
}

function readTarget(at: Buffer): Buffer {
  try {
    return readlinkSync(at, { encoding: "buffer" });
  } catch (error) {
    throw fileError(error, at, "read symlink");
  }
}
