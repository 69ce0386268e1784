import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import {
  collectBytes,
  decompress,
  MemoryBlobService,
  MemoryDirectoryService,
  PackBlobService,
  unlessAborted,
} from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { encodeNixbase32, NarInfo, type PathInfo, renderNar } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { addTree, type BridgeFixture, hashOf, startBridge } from "../../test/bridge-fixture.ts";
import { formatNode } from "../node-text.ts";

const TREE = {
  bin: { program: Buffer.alloc(300_000, "program "), link: { target: "program" } },
  empty: "",
  readme: "read me",
};

let bridge: BridgeFixture;
let pathInfo: PathInfo;
let nar: Buffer;
/** Paths of the NAR. */
let byHash: string;
let byNode: string;

beforeEach(async () => {
  bridge = await startBridge();
  pathInfo = await addTree(bridge.services, "tree", TREE);
  const parts: Buffer[] = [];
  for await (const part of renderNar(pathInfo.node, bridge.services)) parts.push(Buffer.from(part));
  nar = Buffer.concat(parts);
  byHash = `/nar/${encodeNixbase32(pathInfo.narSha256)}.nar?hash=${hashOf(pathInfo)}`;
  byNode = `/nar/tvix-castore/${formatNode(pathInfo.node)}?narsize=${nar.length}`;
});
afterEach(() => bridge[Symbol.asyncDispose]());

const get = (path: string, headers: Record<string, string> = {}, method = "GET") =>
  fetch(`${bridge.url}${path}`, { headers, method });
const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer());
const sha256 = (bytes: Buffer) => new Uint8Array(createHash("sha256").update(bytes).digest());

describe("a NAR", () => {
  it("is served where its narinfo says, and by its root node", async () => {
    const text = await (await get(`/${hashOf(pathInfo)}.narinfo`)).text();
    const { url, compression, fileSize } = NarInfo.parse(text);
    expect([compression, fileSize]).toEqual(["none", pathInfo.narSize]);
    for (const path of [`/${url}`, byHash, byNode]) {
      const response = await get(path);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-length")).toBe(`${nar.length}`);
      expect(response.headers.get("accept-ranges")).toBe("bytes");
      expect(nar.equals(await bytesOf(response))).toBe(true);
    }
  });

  it("is served in part", async () => {
    const size = nar.length;
    for (const [range, start, end] of [
      ["bytes=0-0", 0, 1],
      ["bytes=1000-200000", 1000, 200_001],
      [`bytes=${size - 5}-`, size - 5, size],
      ["bytes=-7", size - 7, size],
      [`bytes=5-${size * 2}`, 5, size],
    ] as const) {
      const response = await get(byNode, { range });
      expect(response.status).toBe(206);
      expect(response.headers.get("content-range")).toBe(`bytes ${start}-${end - 1}/${size}`);
      expect(nar.subarray(start, end).equals(await bytesOf(response))).toBe(true);
    }
  });

  it("is served whole where a range means nothing, and refused beyond its end", async () => {
    const manyRanges = `bytes=${Array.from({ length: 1000 }, (_, i) => `${i}-${i}`)}`;
    for (const range of ["bytes=5-1", "lines=1-2", "bytes=x-", "bytes=", manyRanges]) {
      const response = await get(byHash, { range });
      expect([range, response.status, (await bytesOf(response)).length]).toEqual([
        ...[range, 200, nar.length],
      ]);
    }
    const beyond = await get(byHash, { range: `bytes=${nar.length}-` });
    expect([beyond.status, beyond.headers.get("content-range")]).toEqual([
      ...[416, `bytes */${nar.length}`],
    ]);
  });

  it("is not sent again to a client that has it, and only whole to one that has another", async () => {
    const etag = (await get(byHash, {}, "HEAD")).headers.get("etag")!;
    expect((await get(byHash, { "if-none-match": `"other", W/${etag}` })).status).toBe(304);
    const range = "bytes=0-9";
    expect((await get(byHash, { range, "if-range": etag })).status).toBe(206);
    expect((await get(byHash, { range, "if-range": '"other"' })).status).toBe(200);
  });

  it("is absent under another hash, or by a store path that is not there", async () => {
    const other = encodeNixbase32(new Uint8Array(32));
    const absent = [
      `/nar/${other}.nar?hash=${hashOf(pathInfo)}`,
      byHash.replace(/=.*/, `=${encodeNixbase32(new Uint8Array(20))}`),
      byHash.replace(/\?.*/, ""),
      "/nar/",
    ];
    for (const path of absent) expect([path, (await get(path)).status]).toEqual([path, 404]);
    expect((await get(byHash.replace(/=.*/, "=nonsense"))).status).toBe(400);
  });

  it("is refused by what is no root node, or with another size than it has", async () => {
    for (const node of ["", "AAAA", "no*base64", `${formatNode(pathInfo.node)}A`]) {
      const { status } = await get(`/nar/tvix-castore/${node}`);
      expect([node, status]).toEqual([node, 400]);
    }
    const wrong = await get(byNode.replace(/=.*/, "=1"));
    expect([wrong.status, await wrong.text()]).toEqual([
      ...[400, `Cannot serve a NAR: expected narsize to be ${nar.length}, found "1"\n`],
    ]);
  });

  it("is served over HTTP/1.0, and many times over one connection", async () => {
    const socket = connect(bridge.port, "127.0.0.1");
    socket.write(`GET ${byHash} HTTP/1.0\r\n\r\n`);
    expect((await text(socket)).endsWith(nar.toString().slice(-100))).toBe(true);
    const kept = connect(bridge.port, "127.0.0.1");
    const request = `HEAD ${byHash} HTTP/1.1\r\nHost: x\r\n`;
    for (let i = 0; i < 3; i++) kept.write(`${request}\r\n`);
    kept.write(`${request}Connection: close\r\n\r\n`);
    expect((await text(kept)).split("HTTP/1.1 200 OK")).toHaveLength(5);
  });
});

describe("a NAR of stored frames", () => {
  let folder: string;
  let packs: PackBlobService;
  let framed: BridgeFixture;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "nar-route-"));
    packs = await PackBlobService.open({ path: folder, onCorrupt: () => undefined });
    framed = await startBridge({ ...bridge.services, blobService: packs });
    await addTree(framed.services, "tree", TREE);
    path = byHash.replace(".nar", ".nar.zst");
  });
  afterEach(async () => {
    await framed[Symbol.asyncDispose]();
    await packs[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  it("is what a narinfo announces, of the length that it has", async () => {
    const { url, compression, fileSize } = NarInfo.parse(
      await (await fetch(`${framed.url}/${hashOf(pathInfo)}.narinfo`)).text(),
    );
    expect([`/${url}`, compression]).toEqual([path, "zstd"]);
    const response = await fetch(`${framed.url}/${url}`);
    expect(response.headers.get("content-length")).toBe(`${fileSize}`);
    const file = await bytesOf(response);
    expect(file.length).toBeLessThan(nar.length / 10);
    const contents = await collectBytes(decompress(Readable.from([file]), "zstd"));
    expect(nar.equals(contents)).toBe(true);
  });

  it("is served in part", async () => {
    const file = await bytesOf(await fetch(`${framed.url}${path}`));
    for (const [start, end] of [
      [0, 1],
      [100, file.length - 100],
      [file.length - 1, file.length],
    ] as const) {
      const headers = { range: `bytes=${start}-${end - 1}` };
      const response = await fetch(`${framed.url}${path}`, { headers });
      expect(response.status).toBe(206);
      expect(file.subarray(start, end).equals(await bytesOf(response))).toBe(true);
    }
  });

  it("is known to be whole uncompressed as well, without another look at its blobs", async () => {
    await (await fetch(`${framed.url}/${hashOf(pathInfo)}.narinfo`)).text();
    using statMany = vi.spyOn(framed.services.blobService, "statMany");
    expect(nar.equals(await bytesOf(await fetch(`${framed.url}${byHash}`)))).toBe(true);
    expect(statMany).not.toHaveBeenCalled();
  });

  it("is announced with the hash of its file once that was served whole, by every bridge", async () => {
    const fileHashAt = async (url: string) => {
      const text = await (await fetch(`${url}/${hashOf(pathInfo)}.narinfo`)).text();
      return NarInfo.parse(text).fileHash;
    };
    expect(await fileHashAt(framed.url)).toBeUndefined();
    await (await fetch(`${framed.url}${path}`, { headers: { range: "bytes=1-" } })).arrayBuffer();
    await using before = await startBridge(framed.services);
    expect(await fileHashAt(before.url)).toBeUndefined();
    const file = await bytesOf(await fetch(`${framed.url}${path}`));
    const digest = sha256(file);
    await using after = await startBridge(framed.services);
    expect(await fileHashAt(after.url)).toEqual({ algorithm: "sha256", digest });
    // Other frames, and so another file, of the same contents.
    await using other = await PackBlobService.open({
      path: join(folder, "level 19"),
      zstdLevel: 19,
    });
    await using again = await startBridge({ ...framed.services, blobService: other });
    await addTree(again.services, "tree", TREE);
    expect(await fileHashAt(again.url)).toBeUndefined();
    const otherFile = await bytesOf(await fetch(`${again.url}${path}`));
    await using last = await startBridge(again.services);
    expect(await fileHashAt(last.url)).toEqual({ algorithm: "sha256", digest: sha256(otherFile) });
    // A tree has one record, however often its frames change.
    const records = await Array.fromAsync(framed.services.objects.list("file-hash/"));
    expect(records.length).toBe(1);
  });

  it("is announced with the hash of its new file once it was healed with other frames", async () => {
    const tree = { digits: Buffer.from(seededBytes("healed", 2_000_000)).toString("hex") };
    const healed = await addTree(framed.services, "healed", tree);
    const narInfoOf = async () => {
      const response = await fetch(`${framed.url}/${hashOf(healed)}.narinfo`);
      return response.ok ? NarInfo.parse(await response.text()) : undefined;
    };
    const { url, fileSize } = (await narInfoOf())!;
    await (await fetch(`${framed.url}/${url}`)).arrayBuffer();
    await vi.waitFor(async () => expect((await narInfoOf())?.fileHash).toBeDefined(), 5000);
    const pack = join(folder, "packs", (await readdir(join(folder, "packs")))[0]!);
    const bytes = await readFile(pack);
    await writeFile(pack, bytes.fill(0, bytes.length - 1000, bytes.length - 900)); // in the last chunk
    await expect(fetch(`${framed.url}/${url}`).then(bytesOf)).rejects.toThrow();
    await vi.waitFor(async () => expect(await narInfoOf()).toBeUndefined(), 5000);
    await using other = await PackBlobService.open({ path: folder, zstdLevel: 19 });
    await addTree({ ...framed.services, blobService: other }, "healed", tree);
    const announced = (await narInfoOf())!;
    expect(announced.fileSize).not.toBe(fileSize);
    expect(announced.fileHash).toBeUndefined();
    const file = await bytesOf(await fetch(`${framed.url}/${url}`));
    expect(BigInt(file.length)).toBe(announced.fileSize);
    await vi.waitFor(
      async () => expect((await narInfoOf())?.fileHash?.digest).toEqual(sha256(file)),
      5000,
    );
  });

  it("is not announced on demand, nor where no frames are stored", async () => {
    await using plain = await startBridge({ ...framed.services, announce: "none" });
    for (const { url } of [plain, bridge]) {
      const text = await (await fetch(`${url}/${hashOf(pathInfo)}.narinfo`)).text();
      expect(`/${NarInfo.parse(text).url}`).toBe(byHash);
    }
    expect((await get(path)).status).toBe(501);
  });

  it("breaks the connection where a frame is damaged, after which the store path is absent", async () => {
    const tree = { noise: seededBytes("damaged", 3_000_000) };
    const damaged = await addTree(framed.services, "damaged", tree);
    const narInfo = `${framed.url}/${hashOf(damaged)}.narinfo`;
    const { url } = NarInfo.parse(await (await fetch(narInfo)).text());
    const pack = join(folder, "packs", (await readdir(join(folder, "packs")))[0]!);
    const bytes = await readFile(pack);
    await writeFile(pack, bytes.fill(0, bytes.length - 1000, bytes.length - 900)); // in the last chunk
    const response = await fetch(`${framed.url}/${url}`);
    expect(response.status).toBe(200);
    await expect(response.arrayBuffer()).rejects.toThrow();
    await expect.poll(() => framed.answered.at(-1)).toMatchObject({ status: 200, complete: false });
    await expect.poll(async () => (await fetch(narInfo)).status, { timeout: 5000 }).toBe(404);
    await addTree(framed.services, "damaged", tree);
    expect((await fetch(narInfo)).status).toBe(200);
    expect((await bytesOf(await fetch(`${framed.url}/${url}`))).length).toBeGreaterThan(3_000_000);
  });

  it("is absent where the store path has another length than its contents", async () => {
    const { pathInfoService } = framed.services;
    await pathInfoService.put({ ...pathInfo, narSize: pathInfo.narSize + 8n });
    const response = await fetch(`${framed.url}/${hashOf(pathInfo)}.narinfo`);
    expect([response.status, await response.text()]).toEqual([
      404,
      expect.stringContaining(`expected ${pathInfo.narSize + 8n}`),
    ]);
  });
});

describe("a NAR whose tree is not whole", () => {
  it("is refused before anything is sent where something is missing", async () => {
    for (const missing of [
      { blobService: new MemoryBlobService() },
      { directoryService: new MemoryDirectoryService() },
    ]) {
      await using lacking = await startBridge({ ...bridge.services, ...missing });
      const response = await fetch(`${lacking.url}${byHash}`);
      expect(response.status).toBe(404);
      expect(await response.text()).toMatch(/^Cannot measure .* missing\n$/);
    }
  });

  it("breaks the connection where damage is found in the middle", async () => {
    const { blobService } = bridge.services;
    vi.spyOn(blobService, "readMany").mockImplementation(async (blobs) =>
      blobs.map(() => undefined),
    );
    vi.spyOn(blobService, "read").mockImplementation(async () => {
      return (async function* () {
        yield Buffer.alloc(100_000, "program ");
        throw new Error("damaged");
      })();
    });
    const socket = connect(bridge.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write(`GET ${byHash} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const answer = await text(socket).catch(() => "");
    expect(answer.length).toBeLessThan(nar.length);
    await expect.poll(() => bridge.answered).toMatchObject([{ status: 200, complete: false }]);
  });
});

describe("a client that leaves", () => {
  it("stops the reading of a NAR", async () => {
    let reading: AbortSignal | undefined;
    vi.spyOn(bridge.services.blobService, "readMany").mockImplementation((_, options) => {
      reading = options!.signal!;
      return unlessAborted(new Promise(() => undefined), reading);
    });
    const socket = connect(bridge.port, "127.0.0.1");
    socket.write(`GET ${byHash} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await expect.poll(() => reading).toBeDefined();
    socket.destroy();
    await expect.poll(() => reading?.aborted).toBe(true);
    await expect.poll(() => bridge.answered).toMatchObject([{ complete: false }]);
  });
});
