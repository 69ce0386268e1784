import { readlink } from "node:fs/promises";
import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { type FileNode, type Node, symlinkTarget } from "../model/node.ts";
import { ATTEMPTS } from "../policy/retry.ts";
import { errorOf } from "../worker/failure.ts";
import { runTask, type Task, taskOf } from "../worker/pool.ts";
import { SlabPool } from "../worker/slab-pool.ts";
import { fileError } from "./file-error.ts";
import { type IngestEntry, ingestEntries } from "./ingest-entries.ts";
import { type ReadFile, readFiles } from "./read-files.ts";
import { SourceFile } from "./source-file.ts";
import type { TreeVisitor } from "./tree-visitor.ts";
import { type WalkStep, walkTree } from "./walk.ts";

/** How far an import has come. */
export interface ImportProgress {
  /** Files, symlinks and folders that were read. */
  readonly entries: number;
  /** Bytes of file contents that were read. */
  readonly bytes: number;
}

/** Options of {@link importPath}. */
export interface ImportOptions extends AbortOptions {
  /** Receives everything that is read, in canonical order. Default: none. */
  visitor?: TreeVisitor;
  /** Receives running totals after each entry and each piece of a large file. Default: none. */
  onProgress?: (progress: ImportProgress) => void;
}

const READ_FILES: Task<typeof readFiles> = taskOf(import.meta.url, "read-files", "readFiles");

/** Largest file in bytes that is read ahead of its turn. A larger one streams when its turn comes. */
const SMALL_FILE = 128 * 1024;

/** Most files, and most steps of the walk, of one stretch. */
const FILES_PER_STRETCH = 96;
const STEPS_PER_STRETCH = 512;

/** Most files that are read in this thread: handing so few to another takes longer. */
const FEW_FILES = 8;

/** Number of stretches that are read ahead. */
const STRETCHES_AHEAD = 4;

/** Number and size in bytes of the buffers that stretches are read into. */
const SLABS = 6;
const SLAB_BYTES = 2 * 1024 * 1024;

/** A digest that no blob has. */
const NO_BLOB = B3Digest.fromBytes(new Uint8Array(B3Digest.LENGTH));

/** Most larger files, and stretches of small ones, that are being stored at a time. */
const MAX_IN_FLIGHT = 64;

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
  const source = new FileSystemSource(services.blobService, options);
  const entries = source.entries(Buffer.from(path));
  return await ingestEntries(services.directoryService, entries, { signal: options.signal });
}

/** Consecutive steps of the walk, whose small files are read together ahead of their turn. */
interface Stretch {
  readonly steps: readonly WalkStep[];
  readonly files: Promise<readonly ReadFile[]>;
  /** The buffer that the files are read into. */
  readonly slab: SharedArrayBuffer;
}

/** A small file that was read, and is being stored. */
interface SmallFile {
  readonly contents: Uint8Array;
  readonly executable: boolean;
  readonly node: () => Promise<FileNode>;
}

/** Reads a tree in canonical order, small files ahead of their turn, and stores their contents. */
class FileSystemSource {
  readonly #blobService: BlobService;
  readonly #visitor: TreeVisitor | undefined;
  readonly #onProgress: ImportOptions["onProgress"];
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #slabs = new SlabPool(SLAB_BYTES, SLABS);
  #slabsInUse = 0;
  /** Work that ends before the import does. */
  readonly #inFlight = new Set<Promise<unknown>>();
  #entriesRead = 0;
  #bytesRead = 0;

  constructor(blobService: BlobService, options: ImportOptions) {
    this.#blobService = blobService;
    this.#visitor = options.visitor;
    this.#onProgress = options.onProgress;
    const { signal } = this.#stop;
    this.#signal = options.signal ? AbortSignal.any([options.signal, signal]) : signal;
  }

  async *entries(root: Buffer): AsyncGenerator<IngestEntry> {
    const walk = walkTree(root);
    const window: Promise<Stretch>[] = [];
    let last: Promise<unknown> = Promise.resolve();
    let complete = false;
    try {
      for (let ended = false; ; ) {
        while (!ended && window.length < STRETCHES_AHEAD) {
          const slab = this.#takeSlab();
          if (slab === undefined) break;
          const stretch = this.#track(last.then(() => this.#nextStretch(walk, slab)));
          window.push(stretch);
          last = stretch;
        }
        const next = await window.shift();
        if (next === undefined) {
          if (ended) break;
          await Promise.race(this.#inFlight); // one of these holds a slab
        } else if (next.steps.length > 0) {
          yield* this.#take(next);
        } else {
          ended = true;
        }
      }
      complete = true;
    } finally {
      if (!complete) this.#stop.abort(new Error("The import ended early"));
      await Promise.allSettled(this.#inFlight);
    }
  }

  #takeSlab(): SharedArrayBuffer | undefined {
    if (this.#slabsInUse === SLABS) return undefined;
    this.#slabsInUse += 1;
    return this.#slabs.take();
  }

  /** Takes steps of the walk and starts to read their files. Has no steps at the end of the walk. */
  async #nextStretch(
    walk: AsyncGenerator<WalkStep, void>,
    slab: SharedArrayBuffer,
  ): Promise<Stretch> {
    const steps: WalkStep[] = [];
    const paths: string[] = [];
    this.#signal.throwIfAborted();
    while (paths.length < FILES_PER_STRETCH && steps.length < STEPS_PER_STRETCH) {
      const { value: step } = await walk.next();
      if (!step) break;
      steps.push(step);
      if (step.type === "file") paths.push(step.at.toString("latin1"));
    }
    const task = { paths, maxSize: SMALL_FILE, slab };
    const files = paths.length > FEW_FILES ? runTask(READ_FILES, task) : readFiles(task);
    return { steps, files: this.#track(Promise.resolve(files)), slab };
  }

  async *#take({ steps, files, slab }: Stretch): AsyncGenerator<IngestEntry> {
    const read = await files;
    const stored = this.#store(read, slab);
    const smallFiles = smallFilesOf(read, slab, stored);
    for (const step of steps) {
      this.#signal.throwIfAborted();
      const { path, at, type } = step;
      const name = path.at(-1);
      if (type !== "leave" && name !== undefined) this.#visitor?.entry(name);
      switch (type) {
        case "enter":
          this.#visitor?.enterDirectory();
          continue;
        case "leave":
          this.#visitor?.leaveDirectory();
          this.#progress(1, 0);
          yield { path, node: "directory" };
          continue;
        case "symlink": {
          const target = symlinkTarget(await readTarget(at));
          this.#visitor?.symlink(target);
          this.#progress(1, 0);
          yield { path, node: { type: "symlink", target } };
          continue;
        }
        case "file": {
          const small = smallFiles.next().value;
          if (small instanceof CastoreError) throw small;
          if (small) this.#showSmall(small);
          const { node } = small ?? (await this.#stream(at));
          this.#progress(1, 0);
          yield { path, node: node() };
        }
      }
    }
    const release = () => {
      this.#slabsInUse -= 1;
      this.#slabs.give(slab);
    };
    this.#track(stored.finally(release));
  }

  /** Stores the files that were read. Resolves with their digests. */
  #store(files: readonly ReadFile[], slab: SharedArrayBuffer): Promise<readonly B3Digest[]> {
    const blobs = files.flatMap((file) =>
      file.type === "read" ? [new Uint8Array(slab, file.at, file.size)] : [],
    );
    if (blobs.length === 0) return Promise.resolve([]);
    return this.#track(this.#blobService.putMany(blobs, { signal: this.#signal }));
  }

  #showSmall({ contents, executable }: SmallFile): void {
    this.#visitor?.file(BigInt(contents.length), executable);
    if (contents.length > 0) this.#visitor?.contents(contents);
    this.#progress(0, contents.length);
  }

  /** Reads a file piece by piece. Its blob may still be in the middle of being stored when this resolves. */
  async #stream(at: Buffer): Promise<Pick<SmallFile, "node">> {
    while (this.#inFlight.size >= MAX_IN_FLIGHT) await Promise.race(this.#inFlight);
    const file = await SourceFile.open(at);
    const { size, executable } = file;
    this.#visitor?.file(BigInt(size), executable);
    const shown = Promise.withResolvers<void>();
    const stored = this.#storeFile(file, shown.resolve).finally(() => file[Symbol.dispose]());
    // Only reading is awaited: the next file is read while this one becomes durable.
    const node = this.#track(fileNode(stored, size, executable));
    await Promise.race([shown.promise, stored]);
    return { node: () => node };
  }

  /**
   * Stores a file. Where the store becomes unavailable meanwhile, as does a daemon that restarts, it is asked something
   * else, which waits as long as the store itself waits; the file is then read again.
   *
   * @param onRead is called when the file was read to its end
   */
  async #storeFile(file: SourceFile, onRead: () => void): Promise<B3Digest> {
    let shown = 0;
    for (let attempt = 1; ; attempt++) {
      let position = 0;
      try {
        await using writer = this.#blobService.openWriter({ signal: this.#signal });
        for await (const data of file.read()) {
          if (position === shown) {
            this.#visitor?.contents(data);
            this.#progress(0, data.length);
            shown += data.length;
          }
          await writer.write(data);
          position += data.length;
        }
        onRead();
        return await writer.close();
      } catch (error) {
        const mayPass = error instanceof CastoreError && error.code === "unavailable";
        if (!mayPass || attempt === ATTEMPTS || this.#signal.aborted) throw error;
        await this.#blobService.has(NO_BLOB, { signal: this.#signal });
      }
    }
  }

  #progress(entries: number, bytes: number): void {
    this.#entriesRead += entries;
    this.#bytesRead += bytes;
    this.#onProgress?.({ entries: this.#entriesRead, bytes: this.#bytesRead });
  }

  #track<T>(promise: Promise<T>): Promise<T> {
    const settled: Promise<boolean> = promise.then(
      () => this.#inFlight.delete(settled),
      () => this.#inFlight.delete(settled), // reported where the promise itself is awaited
    );
    this.#inFlight.add(settled);
    return promise;
  }
}

/** Yields the files of a stretch in order: `undefined` for one that was not read, the error for one that failed. */
function* smallFilesOf(
  files: readonly ReadFile[],
  slab: SharedArrayBuffer,
  stored: Promise<readonly B3Digest[]>,
): Generator<SmallFile | CastoreError | undefined, undefined> {
  let position = 0;
  for (const file of files) {
    if (file.type === "failed") {
      yield errorOf(file.failure);
    } else if (file.type === "large") {
      yield undefined;
    } else {
      const { at, size, executable } = file;
      const i = position++;
      const digest = () => stored.then((digests) => digests[i]!);
      const node = () => fileNode(digest(), size, executable);
      yield { contents: new Uint8Array(slab, at, size), executable, node };
    }
  }
}

async function fileNode(
  stored: Promise<B3Digest>,
  size: number,
  executable: boolean,
): Promise<FileNode> {
  return { type: "file", digest: await stored, size: BigInt(size), executable };
}

async function readTarget(at: Buffer): Promise<Buffer> {
  try {
    return await readlink(at, { encoding: "buffer" });
  } catch (error) {
    throw fileError(error, at, "read symlink");
  }
}
