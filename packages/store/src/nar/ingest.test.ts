import { createHash } from "node:crypto";
import {
  type BlobService,
  type DirectoryService,
  encodeDirectory,
  ingestEntries,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { beforeEach, describe, expect, it } from "vitest";
import { importNar } from "../import.ts";
import { buildCaPath } from "../nix/build-path.ts";
import { nixHash } from "../nix/nix-hash.ts";
import { MemoryPathInfoService } from "../pathinfoservice/memory.ts";
import { ingestNar } from "./ingest.ts";
import type { CalculatedNar } from "./nar-calculation-service.ts";
import { renderNar } from "./renderer.ts";

interface Services {
  blobService: BlobService;
  directoryService: DirectoryService;
}

function services(): Services {
  return { blobService: new MemoryBlobService(), directoryService: new MemoryDirectoryService() };
}

let source: Services;
let target: Services;
beforeEach(() => {
  source = services();
  target = services();
});

async function file(contents: Uint8Array, executable = false): Promise<Node> {
  const digest = await putBlob(source.blobService, contents);
  return { type: "file", digest, size: BigInt(contents.length), executable };
}

/** A tree with 1,500 small files, and large ones among them. */
async function someTree(): Promise<Node> {
  const entries: { path: string[]; node: Node | "directory" }[] = [];
  for (let i = 0; i < 15; i++) {
    for (let j = 0; j < 100; j++) {
      const contents = Buffer.alloc((i * 997 + j * 131) % 9000, `${i} ${j % 50} `);
      entries.push({ path: [`d${i}`, `f${j}`], node: await file(contents, j % 7 === 0) });
    }
    entries.push({ path: [`d${i}`, "large"], node: await file(Buffer.alloc(200_000 * i, `${i}`)) });
    entries.push({
      path: [`d${i}`, "link"],
      node: { type: "symlink", target: symlinkTarget(`../${i}`) },
    });
    entries.push({ path: [`d${i}`], node: "directory" });
  }
  entries.push({ path: ["empty"], node: "directory" }, { path: [], node: "directory" });
  const named = entries.map(({ path, node }) => ({
    path: path.map((name) => pathComponent(name)),
    node,
  }));
  return await ingestEntries(
    source.directoryService,
    (async function* () {
      yield* named;
    })(),
  );
}

async function render(node: Node): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of renderNar(node, source)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

async function* inPieces(bytes: Uint8Array, size = 50_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}

const sha256 = (bytes: Uint8Array) => new Uint8Array(createHash("sha256").update(bytes).digest());

describe("ingestNar", () => {
  it.each([1000, 50_000, 100_000_000])(
    "stores what the NAR was rendered of, in pieces of %i bytes",
    async (size) => {
      const root = await someTree();
      const nar = await render(root);
      const found = await ingestNar(inPieces(nar, size), target);
      expect(found.node).toEqual(root);
      expect(found.narSize).toBe(BigInt(nar.length));
      expect(Buffer.from(found.narSha256).equals(sha256(nar))).toBe(true);
      source = target;
      expect((await render(found.node)).equals(nar)).toBe(true);
    },
  );

  it("stores a root that is a file, or a symlink", async () => {
    const roots = [
      await file(Buffer.from("contents"), true),
      { type: "symlink", target: symlinkTarget("t") } as const,
    ];
    for (const root of roots) {
      const { node } = await ingestNar(inPieces(await render(root)), target);
      expect(node).toEqual(root);
    }
  });

  it("takes what is expected, and shows nothing of what is not", async () => {
    const root = await someTree();
    const nar = await render(root);
    const [narSize, narSha256] = [BigInt(nar.length), sha256(nar)];
    const wrong = new Uint8Array(32);
    const expected = { narSize, narSha256 };
    const sha1 = nixHash("sha1", createHash("sha1").update(nar).digest());
    const cases = [
      [{ expected: { narSize: narSize + 1n, narSha256 } }, /bytes, found/],
      [{ expected: { narSize, narSha256: wrong } }, /expected hash sha256:/],
      [{ expectedCa: { kind: "nar", hash: nixHash("sha256", wrong) } }, /expected content address/],
      [{ expectedCa: { kind: "flat", hash: sha1 } }, /expected content address/],
    ] as const;
    for (const [options, reason] of cases) {
      const ingesting = ingestNar(inPieces(nar), target, options);
      await expect(ingesting).rejects.toMatchObject({
        name: "StoreError",
        code: "invalid_argument",
      });
      await expect(ingesting).rejects.toThrow(reason);
    }
    await expect(ingestNar(inPieces(nar.subarray(0, -8)), target)).rejects.toThrow(
      "Cannot read NAR",
    );
    if (root.type !== "directory") throw new Error("it is a folder");
    expect(await target.directoryService.get(root.digest)).toBeUndefined();
    const first = (await source.directoryService.get(root.digest))!;
    expect(encodeDirectory(first).digest.hex).toBe(root.digest.hex);
    const expectedCa = { kind: "nar", hash: sha1 } as const;
    const { node } = await ingestNar(inPieces(nar), target, { expected, expectedCa });
    expect(node).toEqual(root);
    expect(await target.directoryService.get(root.digest)).toBeDefined();
  });

  it("shows a NAR to a check before any directory is visible, and nothing of one that it refuses", async () => {
    const root = await someTree();
    if (root.type !== "directory") throw new Error("it is a folder");
    const nar = await render(root);
    const refusal = new Error("refused");
    const refused = ingestNar(inPieces(nar), target, {
      check: () => {
        throw refusal;
      },
    });
    await expect(refused).rejects.toBe(refusal);
    expect(await target.directoryService.get(root.digest)).toBeUndefined();
    const checked: CalculatedNar[] = [];
    await ingestNar(inPieces(nar), target, { check: (found) => checked.push(found) });
    expect(checked.map(({ narSize }) => narSize)).toEqual([BigInt(nar.length)]);
    expect(Buffer.from(checked[0]!.narSha256).equals(sha256(nar))).toBe(true);
    expect(await target.directoryService.get(root.digest)).toBeDefined();
  });

  it("rejects with the reason when it is cancelled, and with what the stream or a service throws", async () => {
    const nar = await render(await someTree());
    const reason = new Error("enough");
    const before = { signal: AbortSignal.abort(reason) };
    await expect(ingestNar(inPieces(nar), target, before)).rejects.toBe(reason);
    const controller = new AbortController();
    const meanwhile = async function* () {
      yield nar.subarray(0, nar.length >> 1);
      controller.abort(reason);
      yield nar.subarray(nar.length >> 1);
    };
    const { signal } = controller;
    await expect(ingestNar(meanwhile(), target, { signal })).rejects.toBe(reason);
    const broken = async function* () {
      yield nar.subarray(0, nar.length >> 1);
      throw reason;
    };
    await expect(ingestNar(broken(), target)).rejects.toBe(reason);
    const full = new MemoryBlobService();
    full.putMany = () => Promise.reject(reason);
    await expect(ingestNar(inPieces(nar), { ...target, blobService: full })).rejects.toBe(reason);
  });
});

describe("importNar", () => {
  it("registers the contents of a NAR as what they are said to be", async () => {
    const nar = await render(await file(Buffer.from("contents")));
    const ca = { kind: "flat", hash: nixHash("sha256", sha256(Buffer.from("contents"))) } as const;
    const pathInfo = {
      storePath: buildCaPath("name", ca),
      references: [],
      narSize: BigInt(nar.length),
      narSha256: sha256(nar),
      signatures: [],
      ca,
    };
    const pathInfoService = new MemoryPathInfoService();
    const all = { ...target, pathInfoService };
    const stored = await importNar(inPieces(nar), all, pathInfo);
    expect(stored.node.type).toBe("file");
    expect(await pathInfoService.get(pathInfo.storePath.hashPart)).toEqual(stored);
    const other = { ...pathInfo, narSize: 1n, storePath: buildCaPath("other", ca) };
    await expect(importNar(inPieces(nar), all, other)).rejects.toThrow("expected 1 bytes");
    expect(await pathInfoService.get(other.storePath.hashPart)).toBeUndefined();
  });
});
