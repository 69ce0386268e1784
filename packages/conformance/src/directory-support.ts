import { readFileSync } from "node:fs";
import {
  type B3Digest,
  blake3Digest,
  Directory,
  type DirectoryEntry,
  type DirectoryService,
  decodeDirectory,
  encodeDirectory,
  pathComponent,
  symlinkTarget,
} from "@tvix/castore";
import { expect } from "vitest";
import { VECTORS } from "./trees.ts";

export const digestOf = (directory: Directory): B3Digest => encodeDirectory(directory).digest;

/** An entry for some file. */
export function file(name: string | Uint8Array): DirectoryEntry {
  const node = { type: "file", digest: blake3Digest(Buffer.from("x")), size: 1n } as const;
  return { name: pathComponent(name), node: { ...node, executable: false } };
}

/** An entry for a directory. */
export function folder(name: string | Uint8Array, directory: Directory): DirectoryEntry {
  const { size } = directory;
  return {
    name: pathComponent(name),
    node: { type: "directory", digest: digestOf(directory), size },
  };
}

/** A directory whose encoding is that many bytes long, 16 KiB or more. */
export function directoryOfLength(bytes: number): Directory {
  // Names of one length, and targets long enough that the length prefixes are of one length too.
  const link = (i: number, length: number): DirectoryEntry => ({
    name: pathComponent(`${i}`.padStart(6, "0")),
    node: { type: "symlink", target: symlinkTarget(new Uint8Array(length).fill(0x61)) },
  });
  const lengthOf = (entry: DirectoryEntry) => encodeDirectory(Directory.from([entry])).bytes.length;
  const prefixes = lengthOf(link(0, 2000)) - 2000;
  const count = Math.ceil(bytes / (prefixes + 4095));
  const targets = bytes - count * prefixes;
  const shared = Math.floor(targets / count);
  const longer = targets % count;
  const directory = Directory.from(
    Array.from({ length: count }, (_, i) => link(i, i < longer ? shared + 1 : shared)),
  );
  expect(encodeDirectory(directory).bytes.length).toBe(bytes);
  return directory;
}

export const EMPTY: Directory = Directory.from([]);
export const LEAF: Directory = Directory.from([file("leaf")]);
export const MIDDLE: Directory = Directory.from([folder("a", LEAF), file("b")]);
export const ROOT: Directory = Directory.from([
  folder("again", LEAF),
  folder("middle", MIDDLE),
  folder("none", EMPTY),
]);
/** A tree with a directory that two others refer to, leaves first. */
export const TREE: readonly Directory[] = [LEAF, MIDDLE, EMPTY, ROOT];

/** Stores a tree, its directories given leaves first. */
export async function put(
  service: DirectoryService,
  directories: readonly Directory[],
  options?: { signal?: AbortSignal },
): Promise<B3Digest> {
  await using putter = service.openPutter(options);
  for (const directory of directories) await putter.put(directory);
  return await putter.close();
}

/** The digests of a directory and everything below it, as they come. */
export async function getAll(service: DirectoryService, digest: B3Digest): Promise<string[]> {
  const digests: string[] = [];
  for await (const directory of service.getRecursive(digest)) digests.push(digestOf(directory).hex);
  return digests;
}

export const hexOf = (directories: readonly Directory[]): string[] =>
  directories.map((d) => digestOf(d).hex);

/** Expects that none of the directories can be read. */
export async function expectNone(
  service: DirectoryService,
  directories: readonly Directory[],
): Promise<void> {
  for (const directory of directories) {
    expect(await service.get(digestOf(directory))).toBeUndefined();
  }
}

/** One of the directories in `vectors/directories-counted-once.json`. */
export interface GoDirectory {
  readonly directory: Directory;
  readonly digest_hex: string;
  /** The size that its parent states. */
  readonly size: number;
}

/** A tree that the client of the protocol in Go made, leaves first. */
export function readGoDirectories(): readonly GoDirectory[] {
  const vectors: readonly (Omit<GoDirectory, "directory"> & { message_base64: string })[] =
    JSON.parse(readFileSync(new URL("directories-counted-once.json", VECTORS), "utf8"));
  return vectors.map(({ message_base64, ...rest }) => ({
    ...rest,
    directory: decodeDirectory(Buffer.from(message_base64, "base64")),
  }));
}
