import { readlink } from "node:fs/promises";
import pLimit from "p-limit";
import type { BlobService, BlobWriter } from "../blobservice/blob-service.ts";
import { putBlob } from "../blobservice/put-blob.ts";
import { collectBytes } from "../bytes.ts";
import type { B3Digest } from "../digest.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { type FileNode, type Node, symlinkTarget } from "../node.ts";
import type { AbortOptions } from "../options.ts";
import { fileError } from "./file-error.ts";
import { type IngestEntry, ingestEntries } from "./ingest-entries.ts";
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
  /** Is shown everything that is read, in canonical order. Default: nobody. */
  visitor?: TreeVisitor;
  /** Is told running totals after each entry and each piece of a large file. Default: nobody. */
  onProgress?: (progress: ImportProgress) => void;
}

/** A file of up to this many bytes is read whole ahead of its turn; a larger one streams at its turn. */
const SMALL_FILE = 128 * 1024;

/** How many steps of the walk are taken ahead, and how many blobs may be on their way to the store. */
const READ_AHEAD = 256;

/** How many files are open at the same time for reading ahead. */
const OPEN_FILES = 32;

/**
 * Stores what is at a path of the local file system: a folder with everything below it, a file, or a
 * symlink (which is not followed). Each file is read once. Kept are names, contents, symlink targets
 * and whether the owner may execute a file.
 *
 * When it resolves, all of it is durable. When it rejects, no directory of it is visible; contents
 * that were stored already stay, and make the next attempt faster.
 *
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

/** A file whose turn has not come yet: its contents if it is small, nothing if it will be streamed. */
interface ReadAheadFile {
  readonly contents: Uint8Array;
  readonly executable: boolean;
  readonly node: Promise<FileNode>;
}

/** A step of the walk, with what was begun for it ahead of its turn. */
interface PreparedStep {
  readonly step: WalkStep;
  readonly file?: Promise<ReadAheadFile | undefined>;
}

/** Reads a tree in canonical order, small files ahead of their turn, and stores their contents. */
class FileSystemSource {
  readonly #blobService: BlobService;
  readonly #visitor: TreeVisitor | undefined;
  readonly #onProgress: ImportOptions["onProgress"];
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #openFiles = pLimit(OPEN_FILES);
  /** Reads ahead and blobs on their way to the store. */
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
    const window: PreparedStep[] = [];
    const steps = walkTree(root);
    let complete = false;
    try {
      for (let ended = false; !ended || window.length > 0; ) {
        while (!ended && window.length < READ_AHEAD && this.#inFlight.size < READ_AHEAD) {
          const { value: step } = await steps.next();
          if (step) window.push(this.#prepare(step));
          else ended = true;
        }
        const next = window.shift();
        if (next !== undefined) yield* this.#take(next);
        else if (!ended) await Promise.race(this.#inFlight);
      }
      complete = true;
    } finally {
      if (!complete) this.#stop.abort(new Error("The import ended early"));
      await Promise.allSettled(this.#inFlight);
    }
  }

  #prepare(step: WalkStep): PreparedStep {
    if (step.type !== "file") return { step };
    return { step, file: this.#track(this.#openFiles(() => this.#readSmall(step.at))) };
  }

  async *#take({ step, file }: PreparedStep): AsyncGenerator<IngestEntry> {
    this.#signal.throwIfAborted();
    const { path, at, type } = step;
    const name = path.at(-1);
    if (type !== "leave" && name !== undefined) this.#visitor?.entry(name);
    switch (type) {
      case "enter":
        this.#visitor?.enterDirectory();
        return;
      case "leave":
        this.#visitor?.leaveDirectory();
        this.#progress(1, 0);
        yield { path, node: "directory" };
        return;
      case "symlink": {
        const target = symlinkTarget(await readTarget(at));
        this.#visitor?.symlink(target);
        this.#progress(1, 0);
        yield { path, node: { type: "symlink", target } };
        return;
      }
      case "file": {
        const small = await file;
        if (small !== undefined) this.#showSmall(small);
        const { node } = small ?? (await this.#stream(at));
        this.#progress(1, 0);
        yield { path, node };
      }
    }
  }

  /** Reads a file whole and starts to store it; `undefined` if it is too large for that. */
  async #readSmall(at: Buffer): Promise<ReadAheadFile | undefined> {
    this.#signal.throwIfAborted();
    using file = await SourceFile.open(at);
    if (file.size > SMALL_FILE) return undefined;
    const { executable } = file;
    const contents = await collectBytes(file.read());
    const stored = putBlob(this.#blobService, contents, { signal: this.#signal });
    const node = this.#track(fileNode(stored, contents.length, executable));
    return { contents, executable, node };
  }

  #showSmall({ contents, executable }: ReadAheadFile): void {
    this.#visitor?.file(BigInt(contents.length), executable);
    if (contents.length > 0) this.#visitor?.contents(contents);
    this.#progress(0, contents.length);
  }

  /** Reads a file piece by piece. Its blob may still be on its way to the store afterwards. */
  async #stream(at: Buffer): Promise<{ node: Promise<FileNode> }> {
    using file = await SourceFile.open(at);
    const { size, executable } = file;
    this.#visitor?.file(BigInt(size), executable);
    const writer = this.#blobService.openWriter({ signal: this.#signal });
    try {
      for await (const data of file.read()) {
        this.#visitor?.contents(data);
        await writer.write(data);
        this.#progress(0, data.length);
      }
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
    // Not awaited: the next file is read while this one becomes durable.
    return { node: this.#track(fileNode(closeWriter(writer), size, executable)) };
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

async function fileNode(
  stored: Promise<B3Digest>,
  size: number,
  executable: boolean,
): Promise<FileNode> {
  return { type: "file", digest: await stored, size: BigInt(size), executable };
}

async function closeWriter(writer: BlobWriter): Promise<B3Digest> {
  await using open = writer;
  return await open.close();
}

async function readTarget(at: Buffer): Promise<Buffer> {
  try {
    return await readlink(at, { encoding: "buffer" });
  } catch (error) {
    throw fileError(error, at, "read symlink");
  }
}
