import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { openPathInfoService, STORE_REGISTRIES } from "../composition.ts";
import { StoreError } from "../errors.ts";
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

const NARINFO = "00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo";

/** Where nobody listens. */
const NOBODY = "http://127.0.0.1:1";

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

/** The NAR as `xz -9` compresses it. */
const NAR_XZ = Buffer.from(
  "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM5JT3ANZdAAaANh/vps6/droaek8r6qRTJO2hIwRx/1u/l2m68ym+JXpxK+m02g1+" +
    "mo+dXiRt4hQG2Q3fBgNl2O7hz/GdYc/PIr8s3ArdfQo0bnB9mbihoFblLzT0vFopuSVC8FhqpRTf/gefeRNLGwgnmkADbu3b" +
    "XM8WU1nFC/H/8j2XyiMUIEC8gbT1m7VaIfjMZveoWVHPvmRoX0AhBjvFmWoADrYVc7GSauBfP+yccS/uJHMmV8uBAvifRPg3" +
    "LWDd63Ky5Eb2VPCIdSwuAne7DmmjMRzPtnB+AAAAAADnSxQrGRR8egAB8gH4qRIAC23gS7HEZ/sCAAAAAARZWg==",
  "base64",
);

/** Answers with a Content-Encoding, whatever was asked for. */
const encodedAs =
  (encoding: string | string[], file: Buffer): Answer =>
  (response) =>
    response.setHeader("content-encoding", encoding).end(file);

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

  const twice = (data: Buffer) => gzipSync(brotliCompressSync(data));
  it.each<[string | string[], (data: Buffer) => Buffer]>([
    ["gzip", gzipSync],
    ["x-gzip", gzipSync],
    ["GZIP", gzipSync],
    ["br", brotliCompressSync],
    ["zstd", zstdCompressSync],
    ["xz", () => NAR_XZ],
    ["identity", (data) => data],
    ["br, gzip", twice],
    [["br", "gzip"], twice],
  ])("takes narinfos and NARs that come with Content-Encoding %s", async (encoding, encode) => {
    serve();
    files.set(unsigned.url, encodedAs(encoding, encode(nar)));
    const narInfo = files.get(NARINFO) as Buffer;
    if (encoding !== "xz") files.set(NARINFO, encodedAs(encoding, encode(narInfo)));
    await using service = open();
    expect((await get(service))!.node).toEqual(root);
  });

  it("undoes a Content-Encoding before the compression of the NAR", async () => {
    serve({ compression: "xz" }, encodedAs("gzip", gzipSync(NAR_XZ)));
    await using service = open();
    expect((await get(service))!.node).toEqual(root);
  });

  it.each<[string, Partial<NarInfoFields>, Buffer?]>([
    ["FileSize 0", { fileSize: 0n }],
    ["another FileSize", { fileSize: 1234n }],
    ["another FileHash", { fileHash: nixHash("sha256", new Uint8Array(32)) }],
    ["size and hash of another compression", { compression: "xz", fileSize: 300_280n }, NAR_XZ],
  ])("takes a NAR that is right by NarHash and NarSize, with %s", async (_, fields, file) => {
    serve(fields, file);
    await using service = open();
    expect((await get(service))!.node).toEqual(root);
  });

  it("trusts nobody where the list of keys is empty, but what is content-addressed", async () => {
    serve();
    await using service = open({ publicKeys: [] });
    await expect(get(service)).rejects.toMatchObject({
      code: "permission_denied",
      message: expect.stringContaining("of which there are none"),
    });
    await expectNothingStored();
  });

  it("takes responses with 20 KB of headers, and refuses more than 300 KiB as those of one path", async () => {
    serve();
    const narInfo = files.get(NARINFO) as Buffer;
    const withHeaders = (bytes: number): Answer => {
      const headers = Array.from({ length: bytes / 1000 }, (_, i) => [`x-${i}`, "x".repeat(1000)]);
      return (response) => response.writeHead(200, Object.fromEntries(headers)).end(narInfo);
    };
    await using service = open();
    files.set(NARINFO, withHeaders(20_000));
    expect((await get(service))!.node).toEqual(root);
    files.set(NARINFO, withHeaders(400_000));
    for (let i = 0; i < 5; i++) {
      await expect(get(service)).rejects.toMatchObject({ code: "data_loss" });
    }
    files.set(NARINFO, narInfo);
    expect((await get(service))!.node).toEqual(root);
  });

  it("shows no control characters of what it was sent", async () => {
    await using service = open();
    for (const file of [gzipSync(nar), Buffer.from("a\x1b[2J: \x07\n"), Buffer.from("\x1b")]) {
      files.set(NARINFO, file);
      await expect(get(service)).rejects.toThrow(/^[^\p{Cc}]{1,2000}$/u);
    }
    files.set(NARINFO, (response) => response.writeHead(302, { location: "ftp://\x85" }).end());
    await expect(get(service)).rejects.toThrow(/^[^\p{Cc}]{1,2000}$/u);
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

  it("sends a token to the cache itself, and to no other host", async () => {
    const folder = mkdtempSync(join(tmpdir(), "nix-http-"));
    try {
      const tokenFile = join(folder, "token");
      writeFileSync(tokenFile, "tvx_first\n");
      const headers: (string | undefined)[] = [];
      const note =
        (next: Buffer | Answer): Answer =>
        (response, request) => {
          headers.push(request.headers.authorization);
          if (typeof next === "function") next(response, request);
          else response.end(next);
        };
      serve(
        {},
        note((response) => {
          const elsewhere = base.replace("127.0.0.1", "localhost");
          response.writeHead(302, { location: `${elsewhere}/moved` }).end();
        }),
      );
      files.set("moved", note(nar));
      files.set(NARINFO, note(files.get(NARINFO)!));
      await using service = open({ tokenFile });
      expect((await get(service))!.node).toEqual(root);
      expect(headers).toEqual(["Bearer tvx_first", "Bearer tvx_first", undefined]);
      rmSync(tokenFile);
      await using other = open({ tokenFile });
      await expect(get(other)).rejects.toMatchObject({ code: "permission_denied" });
    } finally {
      rmSync(folder, { recursive: true });
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
    const listing = Array.fromAsync(service.list());
    await expect(listing).rejects.toMatchObject({ code: "unimplemented" });
  });

  it("takes what nobody signed where no key is given, or its name follows from its contents", async () => {
    serve({ signatures: [] });
    await using trusting = open({ publicKeys: undefined });
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
    ["an unknown encoding", "unimplemented", 2, () => serve({}, encodedAs("rot13", nar))],
    ["what is not so encoded", "data_loss", 2, () => serve({}, encodedAs("gzip", nar))],
    ["a URL of another kind", "data_loss", 1, () => serve({ url: "file:///etc/passwd" })],
    [
      "redirects without end",
      "data_loss",
      7,
      () => {
        serve({}, (response) => response.writeHead(302, { location: "/nar/some.nar" }).end());
      },
    ],
    [
      "a redirect to a file of its own",
      "data_loss",
      2,
      () => {
        serve({}, (response) => response.writeHead(302, { location: "file:///etc/passwd" }).end());
      },
    ],
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

  /** A narinfo and a NAR under another name, beside those of {@link serve}. */
  function serveOther(first: number, file: Buffer | Answer): Uint8Array {
    const hashPart = new Uint8Array(20).fill(first);
    const storePath = StorePath.from(hashPart, "other");
    const references: StorePath[] = [];
    const fields = { ...unsigned, storePath, references, url: `nar/other-${first}.nar` };
    const signatures = [SECRET.sign(fingerprint(fields))];
    const narInfo = NarInfo.from({ ...fields, signatures });
    files.set(`${encodeNixbase32(hashPart)}.narinfo`, Buffer.from(`${narInfo}`));
    files.set(fields.url, file);
    return hashPart;
  }

  it.each<[string, Answer, number]>([
    ["is always answered by 503", (response) => void response.writeHead(503).end(), 3],
    ["breaks off each time", cut(1000), 3],
    ["is no NAR", (response) => void response.end("no NAR"), 3],
    ["never comes", () => undefined, 1], // each of three attempts takes a second
  ])("gives other paths while the NAR of one %s", async (_, answer, times) => {
    serve();
    const bad = serveOther(1, answer);
    await using service = open({ timeoutMs: 100 });
    for (let i = 0; i < times; i++) {
      await expect(service.get(bad)).rejects.toThrow();
      expect((await get(service))!.node).toEqual(root);
    }
  });

  it("gives other paths while the narinfo of one is always answered by 500", async () => {
    serve();
    const bad = new Uint8Array(20).fill(1);
    files.set(`${encodeNixbase32(bad)}.narinfo`, (response) => void response.writeHead(500).end());
    await using service = open();
    for (let i = 0; i < 3; i++) {
      await expect(service.get(bad)).rejects.toMatchObject({ code: "unavailable" });
    }
    expect((await get(service))!.node).toEqual(root);
  });

  it("gives what is at one host while another cannot be reached", async () => {
    serve();
    const bad = serveOther(1, nar);
    const name = `${encodeNixbase32(bad)}.narinfo`;
    files.set(name, (response) => void response.writeHead(302, { location: NOBODY }).end());
    await using service = open();
    for (let i = 0; i < 3; i++) {
      await expect(service.get(bad)).rejects.toMatchObject({ code: "unavailable" });
      expect((await get(service))!.node).toEqual(root);
    }
  });

  it.each<[string, Answer]>([
    ["refuses every connection", (response) => void response.destroy()],
    ["answers everything by 502", (response) => void response.writeHead(502).end()],
    ["answers nothing", () => undefined],
  ])("asks a host no more that %s, and tests it later", async (_, answer) => {
    let isDown = true;
    serve();
    const others = [1, 2, 3, 4].map((first) => serveOther(first, nar));
    for (const [path, file] of [...files]) {
      files.set(path, (response, request) => {
        if (isDown) answer(response, request);
        else response.end(file);
      });
    }
    await using service = open({ restMs: 400, timeoutMs: 100 });
    for (const hashPart of others) {
      await expect(service.get(hashPart)).rejects.toMatchObject({ code: "unavailable" });
    }
    const { length } = requests;
    const message = expect.stringMatching(/circuit breaker of "http:.*" is open after: Cannot get/);
    await expect(get(service)).rejects.toMatchObject({ code: "unavailable", message });
    expect(requests).toHaveLength(length);
    isDown = false;
    await expect
      .poll(async () => await get(service).catch(() => undefined), { timeout: 30_000 })
      .toMatchObject({ node: root });
    expect((await get(service))!.node).toEqual(root);
  });

  it("has nobody wait for a host that is tested in the background", async () => {
    serve();
    const answers = [...files];
    const silence: Answer = () => undefined;
    await using service = open({ restMs: 200, timeoutMs: 100, testsInBackground: true });
    for (const [path] of answers) files.set(path, (response) => response.destroy());
    for (let i = 0; i < 2; i++) await expect(get(service)).rejects.toThrow("Cannot get");
    for (const [path] of answers) files.set(path, silence); // a test takes a while from now on
    const { length } = requests;
    await expect
      .poll(async () => {
        const started = requests.length;
        await expect(get(service)).rejects.toThrow("circuit breaker");
        return requests.length > length && requests.length === started; // while the test is under way
      })
      .toBe(true);
    for (const [path, file] of answers) files.set(path, file);
    await expect
      .poll(async () => await get(service).catch(() => undefined), { timeout: 30_000 })
      .toMatchObject({ node: root });
  });

  it("blames no host for a store of its own that is not available", async () => {
    serve();
    await using service = open();
    const openPutter = stores.directoryService.openPutter;
    const failure = new StoreError("unavailable", "the disk is gone");
    stores.directoryService.openPutter = () => {
      throw failure;
    };
    for (let i = 0; i < 3; i++) {
      await expect(get(service)).rejects.toThrow("the disk is gone");
    }
    expect(requests).toHaveLength(6);
    stores.directoryService.openPutter = openPutter;
    expect((await get(service))!.node).toEqual(root);
  });

  it.each([
    ["/some.nar", "/some.nar"],
    ["some.nar", "/cache/some.nar"],
    ["./nar/../some.nar?a=%2B+b", "/cache/some.nar?a=%2B+b"],
    ["//HOST/nar/some.nar", "/nar/some.nar"],
    ["HTTP://HOST/some.nar", "/some.nar"],
  ])("resolves URL %s against where the cache is", async (url, path) => {
    const { host } = new URL(base);
    serve({ url: url.replace("HOST", host) });
    files.set(`cache/${NARINFO}`, files.get(NARINFO)!);
    files.set(path.slice(1), nar);
    await using service = open({ baseUrl: `${base}/cache` });
    expect((await get(service))!.node).toEqual(root);
    expect(requests).toEqual([`cache/${NARINFO}`, path.slice(1)]);
  });

  it("says that nobody listens", async () => {
    await using service = open({ baseUrl: `${NOBODY}/cache` });
    await expect(get(service)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("http://127.0.0.1:1/cache/"),
    });
  });
});

describe("a binary cache behind a proxy", () => {
  /** What the proxy was asked for. */
  let proxied: string[];
  /** Forwards requests to the server, whatever host they are for. */
  const proxy = createServer((request, response) => {
    proxied.push(request.url!);
    const { pathname } = new URL(request.url!);
    const file = files.get(pathname.slice(1));
    if (file instanceof Buffer) response.end(file);
    else response.writeHead(404).end();
  });
  /** Opens a tunnel to the server, whatever host it is for. */
  proxy.on("connect", (request, socket) => {
    proxied.push(`CONNECT ${request.url}`);
    socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
  });
  let address: string;
  beforeAll(async () => {
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    proxy.closeAllConnections();
    await new Promise((resolve) => proxy.close(resolve));
  });
  beforeEach(() => {
    proxied = [];
    for (const name of ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]) {
      vi.stubEnv(name, undefined);
      vi.stubEnv(name.toUpperCase(), undefined);
    }
  });
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it.each(["http_proxy", "all_proxy"])("is reached as %s says", async (name) => {
    serve();
    vi.stubEnv(name, address);
    const baseUrl = "http://cache.invalid/some"; // which only the proxy can reach
    for (const [path, file] of [...files]) files.set(`some/${path}`, file);
    await using service = open({ baseUrl });
    expect((await get(service))!.node).toEqual(root);
    expect(proxied).toEqual([`${baseUrl}/${NARINFO}`, `${baseUrl}/nar/some.nar`]);
  });

  it.each(["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])(
    "of HTTPS by a tunnel, as %s says",
    async (name) => {
      vi.stubEnv(name, address);
      await using service = open({ baseUrl: "https://cache.invalid" });
      await expect(get(service)).rejects.toMatchObject({ code: "unavailable" });
      expect(new Set(proxied)).toEqual(new Set(["CONNECT cache.invalid:443"]));
    },
  );

  it("is reached directly where no_proxy says so, and each host as it is named", async () => {
    vi.stubEnv("http_proxy", address);
    vi.stubEnv("no_proxy", "127.0.0.1");
    serve({ url: "http://nars.invalid/nar/some.nar" });
    files.set("nar/some.nar", nar);
    await using service = open();
    expect((await get(service))!.node).toEqual(root);
    expect(requests).toEqual([NARINFO]);
    expect(proxied).toEqual(["http://nars.invalid/nar/some.nar"]);
  });

  it("is unavailable while the proxy does not answer", async () => {
    serve();
    const silent = createServer(() => undefined).listen(0, "127.0.0.1");
    await once(silent, "listening");
    vi.stubEnv("http_proxy", `http://127.0.0.1:${(silent.address() as AddressInfo).port}`);
    await using service = open({ timeoutMs: 100 });
    await expect(get(service)).rejects.toMatchObject({ code: "unavailable" });
    silent.closeAllConnections();
    silent.close();
  });

  it("is refused with a proxy of another kind", () => {
    vi.stubEnv("http_proxy", "ftp://proxy.invalid");
    expect(() => open()).toThrow(expect.objectContaining({ code: "invalid_argument" }));
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
    ["trusted-public-keys=", "permission_denied"],
    ["trusted-public-keys=%20", "permission_denied"],
    [undefined, undefined],
  ])("trusts nobody with %s", async (keys, code) => {
    serve({ signatures: [] });
    const address = `nix+${base}?${services}${keys === undefined ? "" : `&${keys}`}`;
    await using service = await openPathInfoService(address);
    const getting = service.get(unsigned.storePath.hashPart);
    if (code === undefined) expect(await getting).toMatchObject({ narSize: unsigned.narSize });
    else await expect(getting).rejects.toMatchObject({ code });
  });

  it("trusts nobody with an empty list of keys in a file", async () => {
    serve({ signatures: [] });
    for (const [line, code] of [
      ["public_keys = []", "permission_denied"],
      ["", undefined],
    ] as const) {
      const text = `
        [pathinfoservices.default]
        type = "nix"
        base_url = "${base}"
        ${line}
        [blobservices.default]
        type = "memory"
        [directoryservices.default]
        type = "memory"
      `;
      await using composition = await Composition.parseToml(STORE_REGISTRIES, text);
      const service = await composition.service("pathinfoservices");
      const getting = service.get(unsigned.storePath.hashPart);
      if (code === undefined) expect(await getting).toBeDefined();
      else await expect(getting).rejects.toMatchObject({ code });
    }
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
