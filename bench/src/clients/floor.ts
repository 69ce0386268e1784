/**
 * Does to a tree, one after the other on one thread, what an import of it cannot do without.
 *
 *   floor.ts TREE
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { constants, zstdCompressSync } from "node:zlib";
import { blake3Digest } from "@tvix/castore";
import { Chunker } from "../chunker.ts";
import { filesOf } from "../trees/tree.ts";
import { reportWork } from "./report-work.ts";

/** How much is read at a time, in bytes. */
const READ_SIZE = 4 * 1024 * 1024;

/** What is no longer than this is one chunk, whatever is in it. */
const UNCUT_SIZE = 128 * 1024;

const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

const [tree] = process.argv.slice(2) as [string];
const parts: Record<string, number> = { read: 0, BLAKE3: 0, cut: 0, compress: 0, "SHA-256": 0 };
const files = await Array.fromAsync(filesOf(tree));
const buffer = Buffer.alloc(READ_SIZE);
const sha256 = createHash("sha256");
let bytes = 0;

for (const path of files) {
  const file = spend("read", () => openSync(path, "r"));
  const chunker = new Chunker();
  for (;;) {
    const length = spend("read", () => readSync(file, buffer, 0, READ_SIZE, null));
    if (length === 0) break;
    const data = buffer.subarray(0, length);
    bytes += length;
    spend("BLAKE3", () => blake3Digest(data));
    spend("SHA-256", () => sha256.update(data));
    const chunks =
      length > UNCUT_SIZE ? spend("cut", () => [...chunker.push(data)]) : [new Uint8Array(data)];
    for (const chunk of chunks) compress(chunk);
  }
  const last = chunker.finish();
  if (last) compress(last);
  spend("read", () => closeSync(file));
}
spend("SHA-256", () => sha256.digest());
reportWork({ seconds: Object.values(parts).reduce((sum, part) => sum + part, 0), bytes, parts });

function compress(chunk: Uint8Array): void {
  spend("compress", () => zstdCompressSync(chunk, ZSTD));
}

function spend<T>(part: string, body: () => T): T {
  const start = performance.now();
  const result = body();
  parts[part]! += (performance.now() - start) / 1000;
  return result;
}
