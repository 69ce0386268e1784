import { createHash } from "node:crypto";
import { type AbortOptions, equalBytes, lruCache, type Node } from "@tvix/castore";
import type { FramedNar } from "@tvix/store";
import { formatNode } from "./node-text.ts";
import type { SideObjects } from "./side-objects.ts";

/** How many files are remembered, some hundred bytes each, and for how long that the hash of one is not known. */
const REMEMBERED = 32_768;
const UNKNOWN_MS = 60 * 1000;

const UNKNOWN = "unknown";

/**
 * The SHA-256 digests of NARs as zstd files of stored frames. Each is computed while the file is served whole for the first
 * time, and kept for all bridges.
 */
export class FileHashes {
  readonly #sideObjects: SideObjects;
  readonly #known = lruCache<string, Uint8Array | typeof UNKNOWN>(REMEMBERED);

  constructor(sideObjects: SideObjects) {
    this.#sideObjects = sideObjects;
  }

  /** Returns the digest of the file of a tree, 32 bytes; `undefined` where it was not served yet. */
  async get(root: Node, file: FramedNar, options?: AbortOptions): Promise<Uint8Array | undefined> {
    const key = keyOf(root, file);
    let known = this.#known.get(key);
    if (known === undefined) {
      const found = this.#sideObjects.getFileHash(nameOf(root), options).catch(() => undefined);
      const kept = await found; // a narinfo can do without
      options?.signal?.throwIfAborted();
      known = kept && equalBytes(kept.madeOf, madeOf(file)) ? kept.sha256 : UNKNOWN;
      this.#known.set(key, known, known === UNKNOWN ? { ttl: UNKNOWN_MS } : undefined);
    }
    return known === UNKNOWN ? undefined : known;
  }

  /** Passes a whole file on, and keeps its digest once its last byte was read, unless that is known. */
  async *watch(
    root: Node,
    file: FramedNar,
    pieces: AsyncIterable<Uint8Array>,
    options?: AbortOptions,
  ): AsyncGenerator<Uint8Array> {
    if (await this.get(root, file, options)) {
      yield* pieces;
      return;
    }
    const hash = createHash("sha256");
    let size = 0;
    for await (const data of pieces) {
      hash.update(data);
      size += data.length;
      yield data;
    }
    if (size !== file.fileSize) return; // the reader finds out
    const sha256 = new Uint8Array(hash.digest());
    // Nobody waits: what cannot be kept is computed again.
    this.#sideObjects.putFileHash(nameOf(root), { sha256, madeOf: madeOf(file) }).then(
      () => this.#known.set(keyOf(root, file), sha256),
      () => undefined,
    );
  }
}

/** Names a tree, in hexadecimal. */
function nameOf(root: Node): string {
  return createHash("sha256").update(formatNode(root)).digest("hex");
}

/** Names the file of a tree, by the frames in it. */
function keyOf(root: Node, { tag }: FramedNar): string {
  return `${formatNode(root)} ${tag}`;
}

/** Returns the 32 bytes that tell of which frames a file is made. */
function madeOf({ tag }: FramedNar): Uint8Array {
  return Buffer.from(tag, "base64url");
}
