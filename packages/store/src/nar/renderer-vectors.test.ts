import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  type IngestEntry,
  ingestEntries,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { decodePathInfo, encodePathInfo } from "../convert.ts";
import { type NarSources, renderNar } from "./renderer.ts";

// What is in these files: vectors/README.md.
type Content = { utf8: string } | { fill: number; size: number } | { stream: string; size: number };
type Entry = { path?: string; path_base64?: string } & (
  | { type: "directory" }
  | { type: "file"; content: Content; executable: boolean }
  | { type: "symlink"; target: string }
);
const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../../vectors/${name}`, import.meta.url), "utf8"));
const specs: { tree: string; entries: Entry[] }[] = read("tree-specs.json");
const expectations: {
  tree: string;
  narSize: number;
  narSha256_hex: string;
  pathInfo_base64: string;
}[] = read("tree-expected.json");

function bytesOf(content: Content): Uint8Array {
  if ("utf8" in content) return Buffer.from(content.utf8);
  if ("fill" in content) return Buffer.alloc(content.size, content.fill);
  const parts: Buffer[] = [];
  for (let i = 0; i * 32 < content.size; i++) {
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64LE(BigInt(i));
    parts.push(createHash("sha256").update(content.stream).update(counter).digest());
  }
  return Buffer.concat(parts).subarray(0, content.size);
}

async function nodeOf(entry: Entry, sources: NarSources): Promise<IngestEntry["node"]> {
  if (entry.type === "directory") return "directory";
  if (entry.type === "symlink") return { type: "symlink", target: symlinkTarget(entry.target) };
  const bytes = bytesOf(entry.content);
  const digest = await putBlob(sources.blobService, bytes);
  return { type: "file", digest, size: BigInt(bytes.length), executable: entry.executable };
}

/** Stores a tree and gives its root. */
async function store(entries: readonly Entry[], sources: NarSources): Promise<Node> {
  /** By path, one character a byte. */
  const found = new Map<string, IngestEntry>();
  for (const entry of entries) {
    const bytes =
      entry.path_base64 === undefined
        ? Buffer.from(entry.path ?? "")
        : Buffer.from(entry.path_base64, "base64");
    const names = bytes.toString("latin1").split("/").filter(Boolean);
    const path = names.map((name) => pathComponent(Buffer.from(name, "latin1")));
    for (let depth = 0; depth < names.length; depth++) {
      const above = names.slice(0, depth).join("/");
      if (!found.has(above)) found.set(above, { path: path.slice(0, depth), node: "directory" });
    }
    found.set(names.join("/"), { path, node: await nodeOf(entry, sources) });
  }
  const leavesFirst = [...found.values()].sort((a, b) => b.path.length - a.path.length);
  return await ingestEntries(
    sources.directoryService,
    (async function* () {
      yield* leavesFirst;
    })(),
  );
}

describe("renderNar", () => {
  it.each(expectations.map((expected) => [expected.tree, expected] as const))(
    "makes of tree %s the NAR that the reference makes of it",
    async (tree, { narSize, narSha256_hex, pathInfo_base64 }) => {
      const sources = {
        blobService: new MemoryBlobService(),
        directoryService: new MemoryDirectoryService(),
      };
      const { entries } = specs.find((spec) => spec.tree === tree)!;
      const root = await store(entries, sources);
      const pathInfo = decodePathInfo(Buffer.from(pathInfo_base64, "base64"));
      const encoded = encodePathInfo({ ...pathInfo, node: root });
      expect(Buffer.from(encoded).toString("base64")).toBe(pathInfo_base64);
      const hash = createHash("sha256");
      let size = 0;
      for await (const part of renderNar(root, sources)) {
        hash.update(part);
        size += part.length;
      }
      expect(size).toBe(narSize);
      expect(hash.digest("hex")).toBe(narSha256_hex);
    },
  );
});
