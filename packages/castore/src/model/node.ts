import { quoteBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "./digest.ts";
import { CastoreError } from "./errors.ts";

/** A folder. */
export interface DirectoryNode {
  readonly type: "directory";
  /** Digest of the {@link Directory}. */
  readonly digest: B3Digest;
  /** `size` of the {@link Directory}, an unsigned 64-bit integer. */
  readonly size: bigint;
}

/** A regular file. */
export interface FileNode {
  readonly type: "file";
  /** Digest of the contents. */
  readonly digest: B3Digest;
  /** Length of the contents in bytes, an unsigned 64-bit integer. */
  readonly size: bigint;
  /** Whether the file may be executed. */
  readonly executable: boolean;
}

/** A symbolic link. */
export interface SymlinkNode {
  readonly type: "symlink";
  /** What it points at. */
  readonly target: SymlinkTarget;
}

/** What a name in a directory, or the root of a tree, stands for. The name is kept beside it. */
export type Node = DirectoryNode | FileNode | SymlinkNode;

declare const validated: unique symbol;

/** The target of a symlink: 1 to 4095 bytes without NUL. Made by {@link symlinkTarget}. */
export type SymlinkTarget = Uint8Array & { readonly [validated]: "SymlinkTarget" };

/** Longest symlink target in bytes. */
const MAX_TARGET_LENGTH = 4095;

/**
 * Validates a symlink target. Strings are taken as UTF-8, bytes without a copy.
 *
 * @throws CastoreError `invalid_argument` naming the rule that is broken
 */
export function symlinkTarget(target: Uint8Array | string): SymlinkTarget {
  const bytes = typeof target === "string" ? new TextEncoder().encode(target) : target;
  if (!isSymlinkTarget(bytes)) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot use symlink target ${quoteBytes(bytes)}: expected 1 to ${MAX_TARGET_LENGTH} bytes ` +
        `without NUL, found ${bytes.length} bytes`,
    );
  }
  return bytes;
}

/** Tells whether bytes are a valid symlink target. */
export function isSymlinkTarget(bytes: Uint8Array): bytes is SymlinkTarget {
  return bytes.length > 0 && bytes.length <= MAX_TARGET_LENGTH && !bytes.includes(0);
}
