import { CastoreError, hasCode, lruCache, type Node, SingleFlight } from "@tvix/castore";
import {
  type FramedNar,
  type FramedNarSources,
  isFrameSource,
  measureFramedNar,
  measureNar,
  type NarSources,
  readFramedNar,
  renderNar,
  SeekableNar,
  SharedTrees,
} from "@tvix/store";
import type { ByteRange, Content } from "./exchange.ts";
import type { FileHashes } from "./file-hashes.ts";
import { formatNode } from "./node-text.ts";

/** How many NARs are remembered to be whole, about 300 bytes each, and for how long: damage may be found meanwhile. */
const REMEMBERED = 32_768;
const REMEMBERED_MS = 10 * 60 * 1000;

/** After this long a server that stores no frames is asked again. */
const WITHOUT_FRAMES_MS = 60 * 1000;

/** How many bytes all NARs that are being read hold ahead of their clients, and how many one does at most. */
const ALL_AHEAD = 12 * 1024 * 1024;
const MAX_AHEAD = 3 * 1024 * 1024;

/** Headers of an answer with a NAR. */
export const NAR_HEADERS = { "content-type": "application/x-nix-nar" };

/** The NARs of stored trees. Each is measured, and its tree known to be whole, before any of it is read. */
export class StoredNars {
  readonly #services: NarSources;
  /** Of trees that were whole, by root node. */
  readonly #plain: Measured<number>;
  readonly #framed: Measured<FramedNar>;
  readonly #fileHashes: FileHashes;
  /** How many NARs are being read. */
  #reading = 0;
  /** Until when it is taken for granted that a server stores no frames, by the clock of `performance`. */
  #withoutFramesUntil = 0;

  constructor({ blobService, directoryService }: NarSources, fileHashes: FileHashes) {
    const services = {
      blobService,
      directoryService,
      trees: new SharedTrees(directoryService),
    };
    this.#services = services;
    this.#fileHashes = fileHashes;
    this.#plain = new Measured((root, signal) => measureNar(root, services, { signal }));
    this.#framed = new Measured(async (root, signal) => {
      const measured = await measureFramedNar(root, this.#frameSources, { signal });
      this.#plain.note(root, measured.narSize);
      return measured;
    });
  }

  get #frameSources(): FramedNarSources {
    const { blobService, ...trees } = this.#services;
    if (isFrameSource(blobService)) return { blobService, ...trees };
    throw new CastoreError("unimplemented", "Cannot serve a NAR as stored frames: none are stored");
  }

  /**
   * Returns the NAR of a tree, uncompressed, once the tree is known to be whole.
   *
   * @throws CastoreError `not_found` or `data_loss` if something of the tree is missing
   */
  async open(root: Node, signal: AbortSignal): Promise<Content> {
    const size = await this.#plain.get(root, signal);
    return {
      size,
      etag: `"${formatNode(root)}"`,
      headers: NAR_HEADERS,
      read: (range, signal) => this.#plain.watch(root, this.#read(root, size, range, signal)),
    };
  }

  /** Notes the length of the NAR of a tree all of which was stored just now. */
  noteStored(root: Node, narSize: bigint): void {
    this.#plain.note(root, Number(narSize));
  }

  /**
   * Measures the NAR of a tree as a zstd file of stored frames, once the tree is known to be whole.
   *
   * @returns `undefined` where frames are not stored
   * @throws CastoreError `not_found` or `data_loss` if something of the tree is missing
   */
  async measureFramed(root: Node, signal: AbortSignal): Promise<FramedNar | undefined> {
    const { blobService } = this.#services;
    const isWithout = performance.now() < this.#withoutFramesUntil;
    if (isWithout || !isFrameSource(blobService)) return undefined;
    try {
      return await this.#framed.get(root, signal);
    } catch (error) {
      if (!hasCode(error, "unimplemented")) throw error;
      this.#withoutFramesUntil = performance.now() + WITHOUT_FRAMES_MS;
      return undefined;
    }
  }

  /** Returns the NAR of a tree as a zstd file of stored frames, as {@link measureFramed} does. */
  async openFramed(root: Node, signal: AbortSignal): Promise<Content | undefined> {
    const file = await this.measureFramed(root, signal);
    if (file === undefined) return undefined;
    const read = (range: ByteRange, signal: AbortSignal) => {
      const pieces = this.#counted((readAhead) =>
        readFramedNar(root, this.#frameSources, { ...range, signal, readAhead }),
      );
      const isWhole = range.length === file.fileSize;
      return isWhole ? this.#fileHashes.watch(root, file, pieces, { signal }) : pieces;
    };
    return {
      size: file.fileSize,
      etag: `"${file.tag}"`,
      headers: NAR_HEADERS,
      read: (range, signal) => this.#framed.watch(root, read(range, signal)),
    };
  }

  #read(
    root: Node,
    size: number,
    { offset, length }: ByteRange,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const services = this.#services;
    return this.#counted(async function* (readAhead) {
      if (length === size) yield* renderNar(root, services, { signal, readAhead });
      else {
        await using nar = await SeekableNar.open(root, services, { signal });
        yield* nar.read({ offset, length, signal, readAhead });
      }
    });
  }

  /** Reads a NAR, which shares with all others what may be read ahead. */
  async *#counted(
    read: (readAhead: () => number) => AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    this.#reading += 1;
    try {
      yield* read(() => Math.min(ALL_AHEAD / this.#reading, MAX_AHEAD));
    } finally {
      this.#reading -= 1;
    }
  }
}

/** Remembers what was measured of the NARs of trees, by root node. */
class Measured<T extends {}> {
  readonly #measure: (root: Node, signal: AbortSignal) => Promise<T>;
  readonly #known = lruCache<string, T>(REMEMBERED, { ttlMs: REMEMBERED_MS });
  readonly #running = new SingleFlight<T>();

  constructor(measure: (root: Node, signal: AbortSignal) => Promise<T>) {
    this.#measure = measure;
  }

  async get(root: Node, signal: AbortSignal): Promise<T> {
    const key = keyOf(root);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const measure = async (signal: AbortSignal) => {
      const found = await this.#measure(root, signal);
      this.#known.set(key, found);
      return found;
    };
    return await this.#running.run(key, measure, { signal });
  }

  /** Remembers what was measured elsewhere. */
  note(root: Node, found: T): void {
    this.#known.set(keyOf(root), found);
  }

  /** Passes the pieces of a NAR on. Where reading it fails, it may be damaged, and is measured again when it is asked for. */
  async *watch(root: Node, pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* pieces;
    } catch (error) {
      this.#known.delete(keyOf(root));
      throw error;
    }
  }
}

/** Tells whether an error says that something of a tree is missing or damaged. */
export function isLost(error: unknown): error is CastoreError {
  return hasCode(error, "not_found") || hasCode(error, "data_loss");
}

/** Names a root node and what it states. Unlike its message, it is made in no time. */
function keyOf(node: Node): string {
  if (node.type === "symlink") return `symlink ${Buffer.from(node.target).toString("latin1")}`;
  const kind = node.type === "file" && node.executable ? "executable" : node.type;
  return `${kind} ${node.size} ${node.digest.key}`;
}
