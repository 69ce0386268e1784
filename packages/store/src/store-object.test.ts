import {
  blake3Digest,
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { beforeEach, describe, expect, it } from "vitest";
import { StorePath } from "./nix/store-path.ts";
import { formatObjectName, parseObjectName } from "./object-name.ts";
import { MemoryPathInfoService } from "./pathinfoservice/memory.ts";
import { findObject } from "./store-object.ts";

const HASH = "00bgd045z0d4icpbc2yyz4gx48ak44la";
const CONTENTS = Buffer.from("contents");
const FILE = blake3Digest(CONTENTS);
const ODD_NAME = Buffer.from([0x61, 0xff]);

const file: Node = { type: "file", digest: FILE, size: 8n, executable: true };
const inner = Directory.from([
  { name: pathComponent("hello"), node: file },
  { name: pathComponent(ODD_NAME), node: file },
]);
const innerNode: Node = {
  type: "directory",
  digest: encodeDirectory(inner).digest,
  size: inner.size,
};
const root = Directory.from([
  { name: pathComponent("bin"), node: innerNode },
  { name: pathComponent("link"), node: { type: "symlink", target: symlinkTarget("bin") } },
]);
const rootNode: Node = { type: "directory", digest: encodeDirectory(root).digest, size: root.size };

const services = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
  pathInfoService: new MemoryPathInfoService(),
};

beforeEach(async () => {
  await putBlob(services.blobService, CONTENTS);
  await using putter = services.directoryService.openPutter();
  await putter.put(inner);
  await putter.put(root);
  await putter.close();
  await services.pathInfoService.put({
    storePath: StorePath.parse(`${HASH}-hello`),
    node: rootNode,
    references: [],
    narSize: 1n,
    narSha256: new Uint8Array(32),
    signatures: [],
  });
});

const find = (name: string | Buffer) => findObject(parseObjectName(Buffer.from(name)), services);

describe("something in a store", () => {
  it.each([
    ["its store path", `/nix/store/${HASH}-hello`, rootNode],
    ["its hash part", HASH, rootNode],
    ["a path below", `${HASH}-hello/bin/hello`, file],
    ["a path to a folder", `${HASH}/bin/`, innerNode],
    ["a path of bytes", Buffer.concat([Buffer.from(`${HASH}/bin/`), ODD_NAME]), file],
    ["the digest of a directory", `${innerNode.digest}`, innerNode],
    ["a path below the digest of a directory", `b3:${innerNode.digest.hex}/hello`, file],
    ["the digest of a blob", `${FILE}`, { ...file, executable: false }],
  ])("is found by %s", async (_, name, node) => {
    expect((await find(name)).node).toEqual(node);
  });

  it("has the full store path in its name, and the PathInfo", async () => {
    const { name, pathInfo } = await find(`${HASH}/bin/hello`);
    expect(formatObjectName(name)).toBe(`/nix/store/${HASH}-hello/bin/hello`);
    expect(pathInfo?.storePath.name).toBe("hello");
  });

  it("has no PathInfo if it is found by a digest", async () => {
    expect(await find(`${FILE}`)).toMatchObject({ pathInfo: undefined });
  });

  it.each([
    ["an unknown store path", `1${HASH.slice(1)}-x`, "the store has no such store path"],
    ["another name", `${HASH}-other`, `the store has "/nix/store/${HASH}-hello"`],
    ["an unknown digest", `b3:${"ab".repeat(32)}`, "neither a directory nor a blob"],
    ["an absent entry", `${HASH}/bin/x`, `"/nix/store/${HASH}-hello/bin" has no entry "x"`],
    ["what is below an absent entry", `${HASH}/x/y`, 'hello" has no entry "x"'],
    ["what is below a file", `${HASH}/bin/hello/x`, `hello/bin/hello" is a file`],
    ["what is below a blob", `${FILE}/x`, `"${FILE}" is a file`],
    ["what is behind a symlink", `${HASH}/link/hello`, 'hello/link" is a symlink to "bin"'],
  ])("is not found by %s", async (_, name, reason) => {
    await expect(find(name)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(reason),
    });
  });

  it("is not looked for once cancelled", async () => {
    const options = { signal: AbortSignal.abort(new Error("enough")) };
    const name = parseObjectName(Buffer.from(HASH));
    await expect(findObject(name, services, options)).rejects.toThrow("enough");
  });
});
