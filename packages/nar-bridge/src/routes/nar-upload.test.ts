import { createHash } from "node:crypto";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { zstdCompressSync } from "node:zlib";
import {
  type BlobWriter,
  type Compression,
  collectBytes,
  decompress,
  MemoryBlobService,
  MemoryObjectStore,
  type ObjectStore,
} from "@tvix/castore";
import { encodeNixbase32, MemoryPathInfoService } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addTree, type BridgeFixture, startBridge } from "../../test/bridge-fixture.ts";
import { type Push, pushOf, pushOfFile, put as putFile } from "../../test/push.ts";
import { HttpError } from "../http-error.ts";

const TREE = { bin: { program: "program ".repeat(50_000) }, readme: "read me" };

/** The NAR of a file with "contents" in it, compressed by `bzip2`. */
const BZIP2 = Buffer.from(
  "QlpoOTFBWSZTWcw3u6AAAB5ZgGzCAGIgACrl32AgAEhKnqQPKNANNDQNSaNoTBGJieTNntGHd2yQAdKigElFRhKuk1hcd1" +
    "s9GnTyrmCBBPwx4cAs0HWxdyRThQkMw3u6AA==",
  "base64",
);

let objects: MemoryObjectStore;
let bridge: BridgeFixture;
beforeEach(async () => {
  objects = new MemoryObjectStore();
  bridge = await startBridge({ objects });
});
afterEach(() => bridge[Symbol.asyncDispose]());

const put = (path: string, body: Parameters<typeof putFile>[1]) =>
  putFile(`${bridge.url}${path}`, body);
const head = (path: string) => fetch(`${bridge.url}${path}`, { method: "HEAD" });
const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer());

async function push({ narPath, file, narInfoPath, narInfo }: Push): Promise<void> {
  for (const [path, body] of [
    [narPath, file],
    [narInfoPath, narInfo],
  ] as const) {
    const response = await put(path, body);
    expect([response.status, await response.text()]).toEqual([201, ""]);
  }
}

async function keysOf(objects: ObjectStore): Promise<string[]> {
  return (await Array.fromAsync(objects.list(""))).map(({ key }) => key);
}

async function decompressed(file: Buffer, compression: Compression | "none"): Promise<Buffer> {
  if (compression === "none") return file;
  return Buffer.from(await collectBytes(decompress(ReadableStream.from([file]), compression)));
}

/** Looks at what is written to it a moment later, as it may. */
class SlowBlobService extends MemoryBlobService {
  override openWriter(...options: Parameters<MemoryBlobService["openWriter"]>): BlobWriter {
    const writer = super.openWriter(...options);
    return {
      write: async (data) => {
        await sleep(2);
        await writer.write(data);
      },
      close: () => writer.close(),
      [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
    };
  }
}

describe.each(["none", "br", "gzip", "xz", "zstd"] as const)("a NAR by %s", (compression) => {
  it("is served under the name that it was pushed under, in this compression", async () => {
    const pushed = await pushOf("tree", TREE, compression);
    expect((await head(pushed.narPath)).status).toBe(404);
    await push(pushed);
    const { status, headers } = await head(pushed.narPath);
    expect(status).toBe(200);
    const response = await fetch(`${bridge.url}${pushed.narPath}`);
    const file = await bytesOf(response);
    expect(headers.get("content-length")).toBe(`${file.length}`);
    expect(pushed.nar.equals(await decompressed(file, compression))).toBe(true);
    const range = { range: `bytes=1000-${file.length - 2}` };
    const part = await fetch(`${bridge.url}${pushed.narPath}`, { headers: range });
    expect(part.status).toBe(206);
    expect(file.subarray(1000, -1).equals(await bytesOf(part))).toBe(true);
    const { pathInfoService } = bridge.services;
    const stored = (await pathInfoService.get(pushed.pathInfo.storePath.hashPart))!;
    expect(stored.node).toEqual(pushed.pathInfo.node);
  });

  it("may be named by its own hash", async () => {
    const { nar, narPath, file, pathInfo } = await pushOf("tree", TREE, compression);
    const ending = narPath.slice(narPath.indexOf("."));
    const path = `/nar/${encodeNixbase32(pathInfo.narSha256)}${ending}`;
    expect((await put(path, file)).status).toBe(201);
    const found = await bytesOf(await fetch(`${bridge.url}${path}`));
    expect(nar.equals(await decompressed(found, compression))).toBe(true);
  });

  it("is refused where a byte of it is another, and leaves nothing", async () => {
    const { nar, narPath, file, pathInfo } = await pushOf("tree", TREE, compression);
    for (const at of [0, file.length >> 1, file.length - 1]) {
      const damaged = Buffer.from(file);
      damaged[at]! ^= 1;
      const response = await put(narPath, damaged);
      expect([at, response.status]).toEqual([at, 400]);
      expect((await put(narPath, file.subarray(0, at))).status).toBe(400);
    }
    const more = await put(narPath, Buffer.concat([file, nar.subarray(0, 9)]));
    expect(more.status).toBe(400);
    expect((await head(narPath)).status).toBe(404);
    const { node } = pathInfo;
    if (node.type !== "directory") throw new Error("it is a folder");
    expect(await bridge.services.directoryService.get(node.digest)).toBeUndefined();
    expect(await keysOf(objects)).toEqual([]);
  });
});

it("serves a NAR by bzip2 with the bytes that were pushed", async () => {
  await using other = await startBridge();
  const pathInfo = await addTree(other.services, "file", "contents");
  const pushed = pushOfFile(pathInfo, Buffer.alloc(0), BZIP2, "bzip2");
  await push(pushed);
  const file = await bytesOf(await fetch(`${bridge.url}${pushed.narPath}`));
  expect(file.equals(BZIP2)).toBe(true);
});

describe("the upload of a NAR", () => {
  it.each([
    ["no hash", "/nar/abc.nar", "expected a SHA-256 in nixbase32"],
    ["a hash that is too long", `/nar/${"0".repeat(53)}.nar`, "expected a SHA-256 in nixbase32"],
    ["another ending", `/nar/${"0".repeat(52)}.nar.lz4`, ".nar.zst"],
    ["no ending", `/nar/${"0".repeat(52)}`, ".nar.zst"],
  ])("is refused by a name with %s", async (_, path, reason) => {
    const response = await put(path, "body");
    expect([response.status, await response.text()]).toEqual([
      400,
      expect.stringContaining(reason),
    ]);
  });

  it("is refused by the hash of something else, which the answer names", async () => {
    const { file, pathInfo } = await pushOf("tree", TREE);
    const response = await put(`/nar/${"0".repeat(52)}.nar`, file);
    expect(response.status).toBe(400);
    const hash = encodeNixbase32(pathInfo.narSha256);
    expect(await response.text()).toContain(`found file sha256:${hash}, NAR sha256:${hash}`);
  });

  it("is refused where it is compressed in another way than its name says", async () => {
    const { narPath, file } = await pushOf("tree", TREE, "zstd");
    const response = await put(narPath.replace(".zst", ".xz"), file);
    expect(response.status).toBe(400);
    expect(await response.text()).toMatch(/^Cannot decompress "[^"]*" \(xz\): /);
  });

  it("waits for its narinfo through a restart, and is swept then", async () => {
    const { narPath, file } = await pushOf("tree", TREE, "xz");
    expect((await put(narPath, file)).status).toBe(201);
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge(bridge.services);
    expect((await head(narPath)).status).toBe(200);
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ ...bridge.services, uploadTtlMs: 10 });
    while ((await head(narPath)).status === 200) await new Promise((r) => setTimeout(r, 5));
    expect(await keysOf(objects)).toEqual([]);
  });

  it("is swept with what is left of a narinfo that was not stored", async () => {
    const kept = await pushOf("kept", TREE, "zstd");
    await push(kept);
    const [keptKey] = await keysOf(objects);
    const lost = await pushOf("lost", "other contents", "zstd");
    const failing = new MemoryPathInfoService();
    failing.put = () => Promise.reject(new Error("killed"));
    await bridge[Symbol.asyncDispose]();
    const { pathInfoService, ...services } = bridge.services;
    bridge = await startBridge({ ...services, pathInfoService: failing });
    await put(lost.narPath, lost.file);
    expect((await put(lost.narInfoPath, lost.narInfo)).status).toBe(500);
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ ...services, pathInfoService });
    await put(kept.narPath, kept.file); // pushed again, and not named again
    const found = await keysOf(objects);
    expect(found.filter((key) => key.startsWith("nar/"))).toHaveLength(2);
    expect(found.filter((key) => key.startsWith("upload/"))).toHaveLength(2);
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ ...services, pathInfoService, uploadTtlMs: 10 });
    await expect.poll(() => keysOf(objects), { interval: 5 }).toEqual([keptKey]);
    expect((await head(kept.narPath)).status).toBe(200);
  });

  it("is pushed again where its record is damaged", async () => {
    const pushed = await pushOf("tree", TREE);
    await push(pushed);
    await expect.poll(() => keysOf(objects), { timeout: 10_000 }).toHaveLength(1); // that of the upload goes later
    const [key] = await keysOf(objects);
    await objects.put(key!, Buffer.from("{}"));
    expect((await head(pushed.narPath)).status).toBe(404);
    await push(pushed);
    expect((await head(pushed.narPath)).status).toBe(200);
  });

  it("counts for limits that are shared with others, while it is under way", async () => {
    await bridge[Symbol.asyncDispose]();
    let running = 0;
    let most = 0;
    const admit = async (client: string) => {
      if (running >= 2) throw new HttpError(429, `too many of ${client}`);
      running += 1;
      most = Math.max(most, running);
      const leave = () => {
        running -= 1;
      };
      return { [Symbol.dispose]: leave };
    };
    bridge = await startBridge({ uploads: { admit } });
    const { narPath, file } = await pushOf("tree", TREE, "zstd");
    const half = Promise.withResolvers<void>();
    const slow = async function* () {
      yield file.subarray(0, 10);
      await half.promise;
      yield file.subarray(10);
    };
    const pending = [1, 2].map(() => put(narPath, slow()));
    await expect.poll(() => running, { interval: 5 }).toBe(2);
    const refused = await put(narPath, file);
    expect([refused.status, await refused.text()]).toEqual([429, "too many of 127.0.0.1\n"]);
    half.resolve();
    for (const response of await Promise.all(pending)) expect(response.status).toBe(201);
    expect((await put(narPath, Buffer.from("no NAR"))).status).toBe(400);
    expect([running, most]).toEqual([0, 2]);
  });

  it("is refused beyond the limit, of the file and of what is in it", async () => {
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ maxUploadBytes: 1_000_000 });
    const { nar } = await pushOf("file", Buffer.alloc(64_000_000));
    const path = `/nar/${"0".repeat(52)}.nar`;
    const pieces = async function* () {
      yield nar;
    };
    for (const body of [zstdCompressSync(nar), nar, pieces()]) {
      const response = await put(path, body);
      expect(response.status).toBe(413);
      expect(await response.text()).toContain("expected at most 1000000 bytes, found more");
    }
  });

  it("may come in chunks, without a length", async () => {
    const { narPath, file } = await pushOf("tree", TREE, "zstd");
    const pieces = async function* () {
      for (let at = 0; at < file.length; at += 7) yield file.subarray(at, at + 7);
    };
    const response = await put(narPath, pieces());
    expect(response.status).toBe(201);
  });

  it("leaves nothing where the client leaves before its end", async () => {
    const { narPath, file } = await pushOf("tree", TREE);
    const left = new AbortController();
    const pieces = async function* () {
      yield file.subarray(0, file.length - 100);
      setTimeout(() => left.abort(), 20);
      await new Promise(() => undefined);
    };
    const url = `${bridge.url}${narPath}`;
    const pushing = putFile(url, pieces(), { signal: left.signal });
    await expect(pushing).rejects.toThrow("aborted");
    while (bridge.answered.length === 0) await new Promise((r) => setTimeout(r, 5));
    expect(bridge.answered[0]).toMatchObject({ complete: false, error: { status: 499 } });
    expect(await keysOf(objects)).toEqual([]);
  });

  it("leaves nothing where the client leaves before the end of a short one, of a length that it has told", async () => {
    const { narPath } = await pushOf("file", Buffer.from("contents"));
    const socket = connect(bridge.port, "127.0.0.1");
    socket.write(`PUT ${narPath} HTTP/1.1\r\nHost: cache\r\nContent-Length: 100\r\n\r\nshorter`);
    setTimeout(() => socket.destroy(), 20);
    await expect.poll(() => bridge.answered, { interval: 5 }).toHaveLength(1);
    expect(bridge.answered[0]).toMatchObject({ complete: false, error: { status: 499 } });
    expect(await keysOf(objects)).toEqual([]);
  });

  it("is stored as it came, where it comes faster than it is stored", async () => {
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ objects, blobService: new SlowBlobService() });
    const contents = createHash("shake256", { outputLength: 5_000_000 }).update("nar").digest();
    const pushed = await pushOf("file", contents);
    await push(pushed);
    const response = await fetch(`${bridge.url}${pushed.narPath}`);
    expect((await bytesOf(response)).equals(pushed.file)).toBe(true);
  });

  it("waits for others, not for too long", async () => {
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ objects, uploads: { all: 1, waitMs: 100 } });
    const { narPath, file } = await pushOf("tree", TREE);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const slow = async function* () {
      yield file.subarray(0, 1);
      await released;
      yield file.subarray(1);
    };
    const first = put(narPath, slow());
    const others = await Promise.all([1, 2].map(() => put(narPath, file)));
    for (const { status, headers } of others) {
      expect([status, headers.get("retry-after")]).toEqual([503, "5"]);
    }
    const next = put(narPath, file);
    release();
    expect([(await first).status, (await next).status]).toEqual([201, 201]);
  });
});
