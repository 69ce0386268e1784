import { hash } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

/** A tree that is described so that any language can make it. */
export interface TreeSpec {
  /** What the tree is called among the vectors. */
  readonly tree: string;
  /** What it is called in the file system, and so in the store. */
  readonly name: string;
  /** Everything in it. Folders above an entry are made where they are not entries themselves. */
  readonly entries: readonly TreeEntry[];
}

/** Where an entry is, from the root of the tree; the root itself has the empty path. */
interface EntryPath {
  readonly path?: string;
  /** Instead of `path`, where that is not UTF-8. */
  readonly path_base64?: string;
}

/** One entry of a {@link TreeSpec}. */
export type TreeEntry = EntryPath &
  (
    | { readonly type: "directory" }
    | { readonly type: "symlink"; readonly target: string }
    | { readonly type: "file"; readonly content: FileContent; readonly executable: boolean }
  );

/** The contents of a file: text, one byte `size` times, or `size` bytes that follow from a seed. */
export type FileContent =
  | { readonly utf8: string }
  | { readonly fill: number; readonly size: number }
  | { readonly stream: string; readonly size: number };

/** What the reference made of a tree. */
export interface TreeExpected {
  readonly tree: string;
  readonly storePath: string;
  readonly pathInfo_base64: string;
  readonly rootNode_base64: string;
  readonly narSize: number;
  readonly narSha256_hex: string;
  readonly directoriesRootToLeaves_base64: readonly string[];
  /** By digest in base64. The chunks are empty where the blob is a single one. */
  readonly blobs: Readonly<
    Record<
      string,
      { readonly size: number; readonly chunks: readonly { digest: string; size: number }[] }
    >
  >;
}

/** The folder of golden data. */
export const VECTORS: URL = new URL("../../../vectors/", import.meta.url);

/** The trees of `vectors/tree-specs.json`. */
export function readTreeSpecs(): TreeSpec[] {
  return JSON.parse(readFileSync(new URL("tree-specs.json", VECTORS), "utf8"));
}

/** What the reference made of them, `vectors/tree-expected.json`. */
export function readTreeExpected(): TreeExpected[] {
  return JSON.parse(readFileSync(new URL("tree-expected.json", VECTORS), "utf8"));
}

/** Makes a tree in the file system, at a path that does not exist yet. */
export async function writeTree(spec: TreeSpec, path: string): Promise<void> {
  for (const entry of spec.entries) {
    const names =
      entry.path_base64 === undefined
        ? Buffer.from(entry.path ?? "")
        : Buffer.from(entry.path_base64, "base64");
    const at =
      names.length === 0 ? Buffer.from(path) : Buffer.concat([Buffer.from(`${path}/`), names]);
    // One character a byte, so that a name of any bytes has a parent.
    await mkdir(Buffer.from(dirname(at.toString("latin1")), "latin1"), { recursive: true });
    switch (entry.type) {
      case "directory":
        await mkdir(at, { recursive: true });
        break;
      case "symlink":
        await symlink(entry.target, at);
        break;
      case "file":
        await writeFile(at, fileContent(entry.content));
        await chmod(at, entry.executable ? 0o755 : 0o644);
    }
  }
}

/** The bytes that a {@link FileContent} describes. */
export function fileContent(content: FileContent): Uint8Array {
  if ("utf8" in content) return Buffer.from(content.utf8);
  if ("fill" in content) return Buffer.alloc(content.size, content.fill);
  return seededBytes(content.stream, content.size);
}

/**
 * Bytes that cannot be compressed and are the same every time: the first `size` bytes of
 * SHA-256(seed, 0), SHA-256(seed, 1), and so on, the numbers as 64-bit little-endian.
 */
export function seededBytes(seed: string, size: number): Uint8Array {
  const bytes = Buffer.alloc(Math.ceil(size / 32) * 32);
  const input = Buffer.from(`${seed}\0\0\0\0\0\0\0\0`);
  for (let i = 0; i * 32 < size; i++) {
    input.writeBigUInt64LE(BigInt(i), input.length - 8);
    hash("sha256", input, "buffer").copy(bytes, i * 32);
  }
  return new Uint8Array(bytes.buffer, bytes.byteOffset, size);
}
