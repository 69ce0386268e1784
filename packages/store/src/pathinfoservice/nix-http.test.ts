import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import {
  Composition,
  collectBytes,
  Directory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openPathInfoService, STORE_REGISTRIES } from "../composition.ts";
import { NarHasher } from "../nar/nar-hasher.ts";
import { renderNar } from "../nar/renderer.ts";
import { buildCaPath } from "../nix/build-path.ts";
import { NarInfo, type NarInfoFields } from "../nix/narinfo.ts";
import { nixHash } from "../nix/nix-hash.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { fingerprint, SigningKey } from "../nix/signature.ts";
import { StorePath } from "../nix/store-path.ts";
import { CachePathInfoService } from "./cache.ts";
import { MemoryPathInfoService } from "./memory.ts";
import { type NixHttpOptions, NixHttpPathInfoService } from "./nix-http.ts";

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

/** What the server has, by path; everything else is answered by 404. */
let files: Map<string, Buffer | Answer>;
let requests: string[];
const server = createServer((request, response) => {
  const path = request.url!.slice(1);
  requests.push(path);
  const file = files.get(path);
  if (typeof file === "function") file(response, request);
  else if (file === undefined) response.writeHead(404).end();
  else response.end(file);
});

let base: string;
beforeAll(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const SECRET = SigningKey.generate("test-1");
const KEYS = { publicKeys: [SECRET.verifyingKey] };

let nar: Buffer;
let root: Node;
let unsigned: NarInfo;
beforeAll(async () => {
  const sources = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
  const contents = Buffer.alloc(300_000, "contents");
  const digest = await putBlob(sources.blobService, contents);
  const node = { type: "file", digest, size: 300_000n, executable: false } as const;
  const directory = Directory.from([{ name: pathComponent("file"), node }]);
  await using putter = sources.directoryService.openPutter();
  await putter.put(directory);
  root = { type: "directory", digest: await putter.close(), size: directory.size };
  nar = Buffer.from(await collectBytes(renderNar(root, sources)));
  const hasher = new NarHasher();
  hasher.update(nar);
  unsigned = NarInfo.from({
    storePath: StorePath.parse("00bgd045z0d4icpbc2yyz4gx48ak44la-name"),
    url: "nar/some.nar",
    compression: "none",
    ...hasher.digest(),
    references: [StorePath.parse("00bgd045z0d4icpbc2yyz4gx48ak44la-name")],
    signatures: [],
  });
});

let stores: { blobService: MemoryBlobService; directoryService: MemoryDirectoryService };
beforeEach(() => {
  files = new Map();
  requests = [];
  stores = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
});

/** Puts a narinfo into the cache, and the NAR, unless there is another answer. */
function serve(fields: Partial<NarInfoFields> = {}, file: Buffer | Answer = nar): NarInfo {
  const { storePath, url, compression, narSha256, narSize, references } = unsigned;
  const all = { storePath, url, compression, narSha256, narSize, references, ...fields };
  const signatures = fields.signatures ?? [SECRET.sign(fingerprint(all))];
  const narInfo = NarInfo.from({ ...all, signatures });
  files.set(`${encodeNixbase32(storePath.hashPart)}.narinfo`, Buffer.from(`${narInfo}`));
  files.set(narInfo.url, file);
  return narInfo;
}

const open = (options: Partial<NixHttpOptions> = {}) =>
  new NixHttpPathInfoService({ baseUrl: base, ...stores, ...KEYS, timeoutMs: 300, ...options });

const get = (service: NixHttpPathInfoService) => service.get(unsigned.storePath.hashPart);

async function expectNothingStored() {
  expect(await Array.fromAsync(stores.directoryService.getRecursive(digestOf(root)))).toEqual([]);
}

function digestOf(node: Node) {
  if (node.type === "symlink") throw new Error("it has none");
  return node.digest;
}

const hashOf = (data: Uint8Array) =>
  nixHash("sha256", new Uint8Array(createHash("sha256").update(data).digest()));

describe("NixHttpPathInfoService", () => {
  it.each([
    ["none", (data: Buffer) => data],
    ["gzip", gzipSync],
    ["br", brotliCompressSync],
    ["zstd", zstdCompressSync],
  ] as const)("gives a store path whose NAR is compressed by %s", async (compression, compress) => {
    const file = compress(nar);
    const narInfo = serve(
      { compression, fileHash: hashOf(file), fileSize: BigInt(file.length) },
      file,
    );
    await using service = open();
    const pathInfo = (await get(service))!;
    expect(pathInfo.node).toEqual(root);
    expect(pathInfo.narSize).toBe(BigInt(nar.length));
    expect(pathInfo.signatures).toEqual(narInfo.signatures);
    const again = Buffer.from(await collectBytes(renderNar(pathInfo.node, stores)));
    expect(again.equals(nar)).toBe(true);
  });

  it("is asked for the contents once by all who ask at the same time", async () => {
    serve();
    await using service = open();
    const all = await Promise.all(Array.from({ length: 10 }, () => get(service)));
    for (const pathInfo of all) expect(pathInfo!.node).toEqual(root);
    expect(requests.toSorted()).toEqual([
      "00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo",
      "nar/some.nar",
    ]);
  });

  it("goes on for those who were not cancelled", async () => {
    serve();
    await using service = open();
    const controller = new AbortController();
    const { signal } = controller;
    const cancelled = service.get(unsigned.storePath.hashPart, { signal });
    const other = get(service);
    const reason = new Error("enough");
    controller.abort(reason);
    await expect(cancelled).rejects.toBe(reason);
    expect((await other)!.node).toEqual(root);
  });

  it.each([404, 403, 410])("has not what is answered by %i", async (status) => {
    await using service = open();
    const path = "00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo";
    files.set(path, (response) => void response.writeHead(status).end());
    expect(await get(service)).toBeUndefined();
    await expect(service.get(new Uint8Array(19))).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });

  it("follows URLs with a query, to other places, and where the server sends it", async () => {
    await using service = open();
    for (const url of ["nar/some.nar?hash=abc", `${base}/elsewhere/some.nar`, "moved"]) {
      serve({ url });
      files.set("elsewhere/some.nar", nar);
      files.set("moved", (response) => {
        response.writeHead(302, { location: "/elsewhere/some.nar" }).end();
      });
      expect((await get(service))!.node).toEqual(root);
    }
  });

  it("fills a cache before it, which then asks no more", async () => {
    serve();
    const near = new MemoryPathInfoService();
    await using far = open();
    await using cache = new CachePathInfoService({ near, far });
    const found = await cache.get(unsigned.storePath.hashPart);
    expect(found!.node).toEqual(root);
    files.clear();
    await expect.poll(() => near.get(unsigned.storePath.hashPart)).toEqual(found);
    expect(await cache.get(unsigned.storePath.hashPart)).toEqual(found);
  });

  it("is only read", async () => {
    await using service = open();
    await expect(service.put()).rejects.toMatchObject({ code: "unimplemented" });
    expect(() => service.list()).toThrow(expect.objectContaining({ code: "unimplemented" }));
  });

  it("takes what nobody signed where no key is given, or its name follows from its contents", async () => {
    serve({ signatures: [] });
    await using trusting = open({ publicKeys: [] });
    expect((await get(trusting))!.node).toEqual(root);

    const hash = nixHash("sha256", unsigned.narSha256);
    const ca = { kind: "nar", hash } as const;
    const storePath = buildCaPath("name", ca);
    const { hashPart } = storePath;
    const narInfo = serve({ storePath, ca, references: [], signatures: [] });
    files.set(`${encodeNixbase32(hashPart)}.narinfo`, Buffer.from(`${narInfo}`));
    await using service = open();
    expect((await service.get(hashPart))!.node).toEqual(root);
  });

  const otherKey = SigningKey.generate("test-1");
  const other = StorePath.parse("11bgd045z0d4icpbc2yyz4gx48ak44la-name");
  const cut = (length: number): Answer => {
    return (response) => {
      response.writeHead(200, { "content-length": nar.length });
      response.write(nar.subarray(0, length), () => response.destroy());
    };
  };
  it.each<[string, string, number, () => unknown]>([
    ["no signature", "permission_denied", 1, () => serve({ signatures: [] })],
    [
      "the signature of another key of that name",
      "permission_denied",
      1,
      () => serve({ signatures: [otherKey.sign(fingerprint(unsigned))] }),
    ],
    [
      "a signature of something else",
      "permission_denied",
      1,
      () =>
        serve({
          signatures: [SECRET.sign(fingerprint({ ...unsigned, references: [], narSize: 7n }))],
        }),
    ],
    ["the narinfo of another path", "data_loss", 1, () => serve({ storePath: other })],
    ["a NAR of another size", "data_loss", 2, () => serve({ narSize: BigInt(nar.length - 8) })],
    ["a NAR of another hash", "data_loss", 2, () => serve({ narSha256: new Uint8Array(32) })],
    ["a NAR that breaks off", "data_loss", 2, () => serve({}, nar.subarray(0, 200_000))],
    ["what is no NAR", "data_loss", 2, () => serve({}, Buffer.alloc(100, "x"))],
    ["another compression", "data_loss", 2, () => serve({ compression: "zstd" })],
    [
      "a compressed NAR that breaks off",
      "data_loss",
      2,
      () => serve({ compression: "gzip" }, gzipSync(nar).subarray(0, -20)),
    ],
    ["an unknown compression", "unimplemented", 1, () => serve({ compression: "rot13" })],
    ["a file of another hash", "data_loss", 2, () => serve({ fileHash: hashOf(Buffer.from("")) })],
    ["a file of another size", "data_loss", 2, () => serve({ fileSize: 1000n })],
    [
      "some bytes that inflate to far more than the NAR",
      "data_loss",
      2,
      () =>
        serve({ compression: "gzip" }, gzipSync(Buffer.concat([nar, Buffer.alloc(50_000_000)]))),
    ],
    ["no NAR", "not_found", 2, () => serve({}, (response) => void response.writeHead(404).end())],
    ["a NAR that is cut off each time", "unavailable", 4, () => serve({}, cut(1000))],
    [
      "a NAR that stalls",
      "unavailable",
      4,
      () => serve({}, (response) => void response.writeHead(200).write(nar.subarray(0, 1000))),
    ],
  ])("shows nothing of a cache that sends %s", async (_, code, count, prepare) => {
    prepare();
    await using service = open();
    // A narinfo of another path is put where this one is looked for.
    if (files.size > 0 && !files.has("00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo")) {
      const [narInfo] = files.values();
      files.set("00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", narInfo!);
    }
    const message = expect.stringContaining(`${base}/: `);
    await expect(get(service)).rejects.toMatchObject({ name: "StoreError", code, message });
    expect(requests).toHaveLength(count);
    await expectNothingStored();
  });

  const NARINFO = "00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo";
  it.each<[string, string, number, () => unknown]>([
    ["no narinfo", "data_loss", 1, () => files.set(NARINFO, Buffer.from("hello"))],
    [
      "a narinfo without end",
      "data_loss",
      1,
      () => files.set(NARINFO, Buffer.alloc(2_000_000, "a")),
    ],
    ["500", "unavailable", 3, () => files.set(NARINFO, (r) => void r.writeHead(500).end())],
    ["418", "data_loss", 1, () => files.set(NARINFO, (r) => void r.writeHead(418).end())],
    ["401", "permission_denied", 1, () => files.set(NARINFO, (r) => void r.writeHead(401).end())],
    ["nothing", "unavailable", 3, () => files.set(NARINFO, () => undefined)],
    ["half an answer", "unavailable", 3, () => files.set(NARINFO, (r) => void r.destroy())],
  ])("says so when the answer is %s", async (_, code, count, prepare) => {
    prepare();
    await using service = open();
    await expect(get(service)).rejects.toMatchObject({ name: "StoreError", code });
    expect(requests).toHaveLength(count);
  });

  it("leaves a cache alone that cannot be reached, and tries again later", async () => {
    let isDown = true;
    serve();
    const narInfo = files.get(NARINFO) as Buffer;
    files.set(NARINFO, (response) => {
      if (isDown) response.writeHead(503).end();
      else response.end(narInfo);
    });
    await using service = open({ restMs: 400 });
    await expect(get(service)).rejects.toMatchObject({ code: "unavailable" });
    expect(requests).toHaveLength(3);
    for (let i = 0; i < 5; i++) {
      const message = expect.stringContaining("left alone");
      await expect(get(service)).rejects.toMatchObject({ code: "unavailable", message });
    }
    expect(requests).toHaveLength(3);
    isDown = false;
    await expect
      .poll(async () => await get(service).catch(() => undefined), { timeout: 5000 })
      .toMatchObject({ node: root });
    expect((await get(service))!.node).toEqual(root);
  });

  it("says that nobody listens", async () => {
    await using service = open({ baseUrl: "http://127.0.0.1:1/cache" });
    await expect(get(service)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("http://127.0.0.1:1/cache/"),
    });
  });
});

describe("the address of a binary cache", () => {
  const services = "blob_service=memory://&directory_service=memory://";
  const key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  const plus = "other.example-1:AAAA+AAA/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

  it.each([
    `nix+https://cache.nixos.org?${services}`,
    `nix+http://192.0.2.1/foo?${services}`,
    `nix+http://[::1]:8080/foo?${services}`,
    `nix+https://cache.nixos.org?trusted-public-keys=${key}&${services}`,
    `nix+https://cache.nixos.org?${services}&trusted-public-keys=${key}%20${plus}`,
    `nix+https://cache.nixos.org?${services}&trusted-public-keys=${encodeURIComponent(plus)}`,
  ])("may be %s", async (address) => {
    await using service = await openPathInfoService(address);
    expect(service).toBeDefined();
  });

  it.each([
    `nix+https://?${services}`,
    `nix+ftp://cache.nixos.org?${services}`,
    `nix+https://cache.nixos.org?trusted-public-keys=wrong&${services}`,
    `nix+https://cache.nixos.org?other=1&${services}`,
    `nix+https://user:secret@cache.nixos.org?${services}`,
  ])("is not %s", async (address) => {
    const error = await openPathInfoService(address).catch((error: unknown) => error);
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(String(error)).not.toContain("secret");
  });

  it.each(["https://user:hunter2@cache.nixos.org", "https://cache.nixos.org?token=hunter2"])(
    "is not %s, which would be in messages, in a file either",
    async (url) => {
      const text = `[pathinfoservices.default]\ntype = "nix"\nbase_url = "${url}"`;
      const error = await Composition.parseToml(STORE_REGISTRIES, text).catch((error) => error);
      expect(error).toMatchObject({ code: "invalid_argument" });
      expect(String(error)).toMatch(/"base_url": expected no credentials/);
      expect(String(error)).not.toContain("hunter2");
    },
  );

  it("says that contents have to go somewhere", async () => {
    const opened = openPathInfoService("nix+https://cache.nixos.org");
    await expect(opened).rejects.toThrow("[blobservices.default]");
  });
});
