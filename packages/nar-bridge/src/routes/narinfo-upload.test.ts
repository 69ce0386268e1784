import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync } from "node:zlib";
import {
  type BlobService,
  CastoreError,
  collectBytes,
  Directory,
  encodeDirectory,
} from "@tvix/castore";
import {
  encodePathInfo,
  fingerprint,
  NarInfo,
  type NarInfoFields,
  nixHash,
  type PathInfo,
  renderNar,
  SigningKey,
  StorePath,
} from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addTree, type BridgeFixture, hashOf, startBridge } from "../../test/bridge-fixture.ts";
import { type Push, pushOf, put } from "../../test/push.ts";
import type { SigningOptions } from "../signer.ts";

const TREE = { readme: "read me" };

/** A tree whose NAR is stored before its upload is answered. */
const LONG_TREE = { bin: { program: "program ".repeat(50_000) } };

let bridge: BridgeFixture;
beforeEach(async () => {
  bridge = await startBridge();
});
afterEach(() => bridge[Symbol.asyncDispose]());

const putNar = ({ narPath, file }: Push) => put(`${bridge.url}${narPath}`, file);
const putNarInfo = ({ narInfoPath, narInfo }: Push, options?: Parameters<typeof put>[2]) =>
  put(`${bridge.url}${narInfoPath}`, narInfo, options);
const stored = ({ pathInfo }: Push) =>
  bridge.services.pathInfoService.get(pathInfo.storePath.hashPart);
const served = async ({ narInfoPath }: Push) =>
  NarInfo.parse(await (await fetch(`${bridge.url}${narInfoPath}`)).text());

async function push(one: Push): Promise<void> {
  expect((await putNar(one)).status).toBe(201);
  expect((await putNarInfo(one)).status).toBe(201);
}

/** Returns a service with some methods replaced. */
function changed<T extends object>(service: T, methods: Partial<T>): T {
  return new Proxy(service, {
    get(target, key) {
      const value = Reflect.get(methods, key) ?? Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function expectSame(found: PathInfo | undefined, expected: PathInfo): void {
  const [a, b] = [found!, expected].map((one) => Buffer.from(encodePathInfo(one)).toString("hex"));
  expect(a).toBe(b);
}

/** Signs a PathInfo. */
const signed = (key: SigningKey, pathInfo: PathInfo) => key.sign(fingerprint(pathInfo));

describe("a narinfo", () => {
  it("makes a store path of a NAR that was pushed, with all that it says", async () => {
    const reference = await addTree(bridge.services, "reference", TREE);
    const key = SigningKey.generate("a-1");
    const storePath = StorePath.from(Buffer.alloc(20, "tree"), "tree");
    const changes = {
      references: [reference.storePath, storePath],
      deriver: StorePath.from(Buffer.alloc(20, "drv"), "built"),
      signatures: [key.sign("something else")],
    };
    const one = await pushOf("tree", TREE, "xz", changes);
    await putNar(one);
    expect(await stored(one)).toBeUndefined();
    expect((await fetch(`${bridge.url}${one.narInfoPath}`)).status).toBe(404);
    expect((await putNarInfo(one)).status).toBe(201);
    expectSame(await stored(one), { ...one.pathInfo, ...changes });
  });

  it("may be compressed", async () => {
    const one = await pushOf("tree", TREE);
    await putNar(one);
    const body = brotliCompressSync(one.narInfo);
    const url = `${bridge.url}${one.narInfoPath}`;
    const unknown = await put(url, body, { headers: { "content-encoding": "compress" } });
    expect([unknown.status, await unknown.text()]).toEqual([
      415,
      expect.stringContaining('found "compress"'),
    ]);
    const wrong = await put(url, one.narInfo, { headers: { "content-encoding": "br" } });
    expect(wrong.status).toBe(400);
    const right = await put(url, body, { headers: { "content-encoding": "br" } });
    expect(right.status).toBe(201);
    expectSame(await stored(one), one.pathInfo);
  });

  const wrong = new Uint8Array(32);
  const other = StorePath.from(Buffer.alloc(20, "other"), "other");
  it.each<[string, number, Partial<NarInfoFields>, string]>([
    ["a NAR that was not pushed", 409, { url: `nar/${"0".repeat(52)}.nar` }, "found none"],
    ["a NAR elsewhere", 409, { url: "http://127.0.0.1/x.nar" }, "found none"],
    ["a NAR outside", 409, { url: "nar/../../x.nar" }, "found none"],
    ["another NAR hash", 400, { narSha256: wrong }, "expected NarHash sha256:"],
    ["another NAR size", 400, { narSize: 1n }, "expected NarSize 288, found 1"],
    ["another file hash", 400, { fileHash: nixHash("sha256", wrong) }, "expected FileHash sha256:"],
    ["another file size", 400, { fileSize: 1n }, "expected FileSize 288, found 1"],
    ["another compression", 400, { compression: "xz" }, "expected Compression none, found xz"],
    ["no compression", 400, { compression: undefined }, "expected Compression none, found bzip2"],
    ["another store path", 400, { storePath: other }, `found "${other}"`],
    ["a missing reference", 409, { references: [other] }, `expected the reference "${other}"`],
  ])("is refused with %s, and leaves nothing", async (_, status, changes, reason) => {
    const one = await pushOf("tree", TREE, "none", changes);
    await putNar(one);
    const response = await putNarInfo(one);
    const text = await response.text();
    expect([response.status, text]).toEqual([status, expect.stringContaining(reason)]);
    expect(text).toContain(one.narInfoPath.slice(1));
    expect(await stored(one)).toBeUndefined();
  });

  it.each([
    ["nothing", "", 400],
    ["no narinfo", "<html>\n", 400],
    ["a path outside of the store dir", "StorePath: /etc/passwd\n", 400],
    ["more than fits", "x".repeat(1024 * 1024 + 1), 413],
  ])("is refused where it is %s", async (_, narInfo, status) => {
    const one = await pushOf("tree", TREE);
    expect((await putNarInfo({ ...one, narInfo })).status).toBe(status);
    expect(await stored(one)).toBeUndefined();
  });

  it("is refused once something of its NAR is lost, which is pushed again then", async () => {
    const one = await pushOf("tree", LONG_TREE);
    await putNar(one);
    await bridge[Symbol.asyncDispose]();
    const { objects } = bridge.services;
    bridge = await startBridge({ objects });
    expect((await putNarInfo(one)).status).toBe(409);
    const url = `${bridge.url}${one.narPath}`;
    expect((await fetch(url, { method: "HEAD" })).status).toBe(404);
    await push(one);
    expectSame(await stored(one), one.pathInfo);
  });

  it("waits until the contents of a small NAR are stored", async () => {
    const stored: string[] = [];
    await bridge[Symbol.asyncDispose]();
    const { blobService, directoryService, pathInfoService } = bridge.services;
    const slowly = async <T>(what: string, store: () => Promise<T>) => {
      await sleep(50);
      const result = await store();
      stored.push(what);
      return result;
    };
    bridge = await startBridge({
      blobService: changed(blobService, {
        putMany: (...args) => slowly("blobs", () => blobService.putMany(...args)),
      }),
      directoryService: changed(directoryService, {
        openPutter: (options) => {
          const putter = directoryService.openPutter(options);
          return changed(putter, { close: () => slowly("directories", () => putter.close()) });
        },
      }),
      pathInfoService: changed(pathInfoService, {
        put: (...args) => slowly("path info", () => pathInfoService.put(...args)),
      }),
    });
    const one = await pushOf("tree", TREE, "zstd");
    await putNar(one);
    expect(stored).toEqual([]);
    expect((await putNarInfo(one)).status).toBe(201);
    expect(stored).toEqual(["blobs", "directories", "path info"]);
  });

  it("is told why the contents of a small NAR cannot be stored, which are stored once they can", async () => {
    let isFull = true;
    await bridge[Symbol.asyncDispose]();
    const { blobService, ...others } = bridge.services;
    const putMany: BlobService["putMany"] = (...args) => {
      if (!isFull) return blobService.putMany(...args);
      return Promise.reject(new CastoreError("resource_exhausted", "the disk is full"));
    };
    bridge = await startBridge({ ...others, blobService: changed(blobService, { putMany }) });
    const one = await pushOf("tree", TREE, "xz");
    expect((await putNar(one)).status).toBe(201);
    const refused = await putNarInfo(one);
    expect([refused.status, await refused.text()]).toEqual([507, "the disk is full\n"]);
    expect(await stored(one)).toBeUndefined();
    isFull = false;
    expect((await putNarInfo(one)).status).toBe(201);
    expectSame(await stored(one), one.pathInfo);
  });

  it.each(["none", "xz", "zstd"] as const)(
    "names a small NAR by %s that another process took and did not store",
    async (compression) => {
      const { objects, blobService } = bridge.services;
      const putMany = () => Promise.reject(new Error("killed"));
      await using killed = await startBridge({
        objects,
        blobService: changed(blobService, { putMany }),
      });
      const one = await pushOf("tree", TREE, compression);
      expect((await put(`${killed.url}${one.narPath}`, one.file)).status).toBe(201);
      await killed[Symbol.asyncDispose]();
      expect((await putNarInfo(one)).status).toBe(201);
      expectSame(await stored(one), one.pathInfo);
      const { narSha256 } = one.pathInfo;
      const nar = renderNar(one.pathInfo.node, bridge.services);
      expect(
        createHash("sha256")
          .update(await collectBytes(nar))
          .digest(),
      ).toEqual(narSha256);
    },
  );

  it("is refused where the record of a small NAR is damaged", async () => {
    const { objects, blobService } = bridge.services;
    await bridge[Symbol.asyncDispose]();
    const putMany = () => Promise.reject(new Error("killed"));
    bridge = await startBridge({ objects, blobService: changed(blobService, { putMany }) });
    const one = await pushOf("tree", TREE, "zstd");
    await putNar(one);
    await bridge[Symbol.asyncDispose]();
    const [key] = (await Array.fromAsync(objects.list("upload/"))).map(({ key }) => key);
    const record = Buffer.from(await collectBytes((await objects.get(key!))!));
    record[record.length - 10]! ^= 1;
    await objects.put(key!, record);
    bridge = await startBridge({ objects });
    expect((await putNarInfo(one)).status).toBe(409);
    await push(one);
    expectSame(await stored(one), one.pathInfo);
  });

  it("is merged with the signatures that are there, also where many push at once", async () => {
    const one = await pushOf("tree", TREE, "zstd");
    const keys = Array.from({ length: 10 }, (_, i) => SigningKey.generate(`key-${i}`));
    await Promise.all(
      keys.map(async (key) => {
        const signatures = [signed(key, one.pathInfo)];
        await push(await pushOf("tree", TREE, "zstd", { signatures }));
      }),
    );
    const names = (await stored(one))!.signatures.map(({ name }) => name);
    expect(names.toSorted()).toEqual(keys.map(({ name }) => name).toSorted());
  });

  it("shares a NAR with another one", async () => {
    const [one, two] = [await pushOf("tree", TREE, "xz"), await pushOf("same", TREE, "xz")];
    await push(one);
    expect(two.narPath).toBe(one.narPath);
    expect((await putNarInfo(two)).status).toBe(201);
    expectSame(await stored(two), two.pathInfo);
  });
});

describe("a key of the cache", () => {
  const key = SigningKey.generate("own-1");
  const startSigning = async (when: SigningOptions["when"]) => {
    await bridge[Symbol.asyncDispose]();
    bridge = await startBridge({ ...bridge.services, signing: { key, when } });
  };

  it("signs what is pushed, for good", async () => {
    await startSigning("stored");
    const other = SigningKey.generate("other-1");
    const one = await pushOf("tree", TREE);
    const theirs = signed(other, one.pathInfo);
    const false_ = { name: key.name, data: new Uint8Array(64) };
    await push(await pushOf("tree", TREE, "none", { signatures: [theirs, false_] }));
    const signatures = [theirs, signed(key, one.pathInfo)];
    expect((await stored(one))!.signatures).toEqual(signatures);
    expect((await served(one)).signatures).toEqual(signatures);
  });

  it("signs what is served, and only there", async () => {
    const one = await pushOf("tree", TREE);
    await push(one);
    await startSigning("served");
    for (let i = 0; i < 2; i++) {
      expect((await served(one)).signatures).toEqual([signed(key, one.pathInfo)]);
    }
    expect((await stored(one))!.signatures).toEqual([]);
  });

  it("signs nothing that is not what it says", async () => {
    const pathInfo = await addTree(bridge.services, "tree", TREE);
    const digest = encodeDirectory(Directory.from([])).digest;
    await bridge.services.pathInfoService.put({ ...pathInfo, narSha256: digest.bytes });
    await startSigning("served");
    const response = await fetch(`${bridge.url}/${hashOf(pathInfo)}.narinfo`);
    expect(NarInfo.parse(await response.text()).signatures).toEqual([]);
  });
});
