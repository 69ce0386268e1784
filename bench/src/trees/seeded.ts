import { existsSync } from "node:fs";
import { chmod, mkdir, open, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Content, library, noise, text } from "./content.ts";
import { chance, fraction, logNormal, seeded } from "./random.ts";

/** Part of the names of generated trees: to be counted up when what is generated changes. */
const GENERATION = 1;

const SMALL_FILES = 10_000;

/** Sizes of small files, in bytes: with this spread the mean is about 15 KB. */
const MEDIAN_SIZE = 4096;
const SIZE_SPREAD = 1.62;
const LARGEST_SIZE = 4 * 1024 * 1024;

const MB = 1_000_000;
const PIECE = 4 * MB;

/** The path of 10,000 small files, as of a source tree; generated if it is not there yet. */
export function smallTree(cache: string): Promise<string> {
  return generated(cache, "small", (path) => writeSmallFiles(path, false));
}

/** The path of {@link smallTree} with other contents in every tenth file. */
export function changedTree(cache: string): Promise<string> {
  return generated(cache, "changed", (path) => writeSmallFiles(path, true));
}

/** The path of a few large files, as of shared libraries. */
export function largeTree(cache: string): Promise<string> {
  return generated(cache, "large", async (path) => {
    await mkdir(path, { recursive: true });
    await writeLibrary(join(path, "libcore.so"), 60 * MB, 1001);
    await writeLibrary(join(path, "librender.so"), 100 * MB, 1002);
    await writeLibrary(join(path, "libcompiler.so"), 180 * MB, 1003);
  });
}

/** The path of a tree like {@link smallTree} with so many files. */
export function treeOfFiles(cache: string, files: number): Promise<string> {
  return generated(cache, `files-${files}`, (path) => writeSmallFiles(path, false, files));
}

/** The path of a file of so many megabytes that compresses as a shared library does. */
export function largeFile(cache: string, megabytes: number): Promise<string> {
  return generated(cache, `large-${megabytes}`, (path) => writeLibrary(path, megabytes * MB, 3001));
}

/** The path of a file of 256 MB, for blobs that are sent over a socket. */
export function blobFile(cache: string): Promise<string> {
  return generated(cache, "blobs", (path) => writeLibrary(path, 256 * MB, 2001));
}

/** The path of a tree of 1,000 folders with 99 files of a few bytes in each. */
export function manyEntries(cache: string): Promise<string> {
  return generated(cache, "many", async (path) => {
    for (let i = 0; i < 1000; i++) {
      const folder = join(path, `group-${i % 10}`, `part-${i}`);
      await mkdir(folder, { recursive: true });
      for (let j = 0; j < 99; j++) await writeFile(join(folder, `file-${j}`), `${i} ${j}\n`);
    }
  });
}

async function generated(
  cache: string,
  name: string,
  write: (path: string) => Promise<void>,
): Promise<string> {
  const path = join(cache, "trees", `v${GENERATION}`, name);
  const unfinished = `${path}.unfinished`;
  if (existsSync(path)) return path;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(dirname(path), { recursive: true });
  await write(unfinished);
  await rename(unfinished, path);
  return path;
}

async function writeSmallFiles(
  path: string,
  changed: boolean,
  files: number = SMALL_FILES,
): Promise<void> {
  for (let i = 0; i < files; i++) {
    const shape = seeded(i);
    const size = Math.min(Math.round(logNormal(shape, MEDIAN_SIZE, SIZE_SPREAD)), LARGEST_SIZE);
    const kind = fraction(shape);
    const [content, extension]: [Content, string] =
      kind < 0.82 ? [text, "ts"] : kind < 0.94 ? [library, "o"] : [noise, "png"];
    const folder = join(path, `group-${i % 9}`, `package-${i % 81}`, `part-${i % 810}`);
    const file = join(folder, `file-${i}.${extension}`);
    await mkdir(folder, { recursive: true });
    const seed = changed && i % 10 === 5 ? SMALL_FILES * 2 + i : SMALL_FILES + i;
    await writeFile(file, content(seeded(seed), size));
    if (chance(shape, 0.02)) await chmod(file, 0o755);
    if (chance(shape, 0.01)) await symlink(`file-${i}.${extension}`, join(folder, `link-${i}`));
  }
}

async function writeLibrary(path: string, size: number, seed: number): Promise<void> {
  const rng = seeded(seed);
  await using file = await open(path, "w");
  for (let written = 0; written < size; written += PIECE) {
    await file.writeFile(library(rng, Math.min(PIECE, size - written)));
  }
}
