import { quoteBytes } from "../bytes/byte-string.ts";
import { B3Digest } from "../model/digest.ts";
import type { DirectoryEntry } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { MAX_MESSAGE_BYTES } from "../model/limits.ts";
import type { DirectoryNode } from "../model/node.ts";
import type { EncodedDirectory } from "./encoded-directory.ts";
import { SizeLedger } from "./size-ledger.ts";

/**
 * Checks that directories arrive from the leaves to the root: each refers only to earlier ones, with their sizes, and
 * all can be reached from the last one. Keeps digests and sizes only.
 */
export class LeavesToRootValidator {
  readonly #sizes = new SizeLedger();
  /** Digests of directories without a parent so far. At the end the root is the only one. */
  readonly #unreferenced = new Set<string>();
  #last: B3Digest | undefined;

  /**
   * Takes the next directory.
   *
   * @returns whether it is new; `false` for a repeated directory
   * @throws CastoreError `invalid_argument` if it refers to a directory that did not arrive before, or states a wrong
   *   size for one, `resource_exhausted` if it exceeds {@link MAX_MESSAGE_BYTES}
   */
  add({ directory, bytes, digest }: EncodedDirectory): boolean {
    if (bytes.length > MAX_MESSAGE_BYTES) {
      throw new CastoreError(
        "resource_exhausted",
        `Cannot take directory ${digest}: expected at most ${MAX_MESSAGE_BYTES} bytes, ` +
          `found ${bytes.length}`,
      );
    }
    for (const { name, node } of directory.directories()) {
      if (!this.#sizes.has(node.digest.key)) {
        throw new CastoreError(
          "invalid_argument",
          `Cannot take directory ${digest}: entry ${quoteBytes(name)} refers to ${node.digest}, ` +
            "expected that directory before it",
        );
      }
      if (this.#sizes.refer(node.digest.key, node.size) === "wrong") {
        throw wrongSize(digest, name, node);
      }
    }
    this.#last = digest;
    if (this.#sizes.has(digest.key)) return false;
    for (const { node } of directory.directories()) this.#unreferenced.delete(node.digest.key);
    this.#sizes.find(digest.key, directory);
    this.#unreferenced.add(digest.key);
    return true;
  }

  /**
   * To be called after the last directory.
   *
   * @returns the digest of the root
   * @throws CastoreError `invalid_argument` if there was no directory, or one that cannot be reached from the root
   */
  finish(): B3Digest {
    if (this.#last === undefined) {
      throw new CastoreError(
        "invalid_argument",
        "Cannot store a tree: expected a directory, found none",
      );
    }
    for (const key of this.#unreferenced) {
      if (key === this.#last.key) continue;
      const digest = B3Digest.fromKey(key);
      throw new CastoreError(
        "invalid_argument",
        `Cannot store a tree with root ${this.#last}: directory ${digest} cannot be reached from it`,
      );
    }
    return this.#last;
  }
}

/** A reference to a directory that has not arrived. */
interface Reference {
  readonly parent: B3Digest;
  readonly entry: DirectoryEntry["name"];
  readonly node: DirectoryNode;
}

/**
 * Checks that directories arrive from the root to the leaves: first the requested root, then directories that an
 * earlier one refers to, with the stated size, each once, until none is missing. Keeps digests and references only.
 */
export class RootToLeavesValidator {
  readonly #root: B3Digest;
  /** References to directories that have not arrived, by digest. */
  readonly #expected = new Map<string, Reference>();
  readonly #sizes = new SizeLedger();
  #hasBegun = false;

  /** @param root digest of the first directory */
  constructor(root: B3Digest) {
    this.#root = root;
  }

  /** Returns whether the next directory may be the one of that digest. */
  expects(digest: B3Digest): boolean {
    return this.#hasBegun ? this.#expected.has(digest.key) : digest.equals(this.#root);
  }

  /**
   * Takes the next directory.
   *
   * @throws CastoreError `invalid_argument` if it is first and not the root, if no earlier directory refers to it, if
   *   it is repeated, or if sizes do not match
   */
  add({ directory, digest }: EncodedDirectory): void {
    const reference = this.#expected.get(digest.key);
    if (!this.#hasBegun && !digest.equals(this.#root)) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot take directory ${digest}: expected the root ${this.#root} first`,
      );
    }
    if (this.#hasBegun && reference === undefined) {
      const reason = this.#sizes.has(digest.key)
        ? "it came before"
        : "no directory before it refers to it";
      throw new CastoreError("invalid_argument", `Cannot take directory ${digest}: ${reason}`);
    }
    this.#hasBegun = true;
    const wrong = this.#sizes.find(digest.key, directory);
    if (wrong !== undefined) {
      const { parent, entry, node } = reference!; // somebody stated it
      throw wrongSize(parent, entry, { ...node, size: wrong });
    }
    this.#expected.delete(digest.key);
    for (const { name, node } of directory.directories()) {
      const met = this.#sizes.refer(node.digest.key, node.size);
      if (met === "wrong") throw wrongSize(digest, name, node);
      if (met === "first")
        this.#expected.set(node.digest.key, { parent: digest, entry: name, node });
    }
  }

  /**
   * Ends the sequence; called after the last directory. An empty sequence is valid: the root is absent then.
   *
   * @throws CastoreError `invalid_argument` if a referenced directory is missing
   */
  finish(): void {
    const [missing] = this.#expected;
    if (missing === undefined) return;
    const [key, { parent, entry }] = missing;
    const digest = B3Digest.fromKey(key);
    throw new CastoreError(
      "invalid_argument",
      `Cannot take the tree below ${this.#root}: entry ${quoteBytes(entry)} of directory ${parent} ` +
        `refers to ${digest}, which is missing`,
    );
  }
}

function wrongSize(parent: B3Digest, entry: Uint8Array, node: DirectoryNode): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot take directory ${parent}: entry ${quoteBytes(entry)} states size ${node.size}, which ` +
      `directory ${node.digest} does not have`,
  );
}
