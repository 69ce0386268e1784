import { brotliCompressSync, gzipSync } from "node:zlib";
import { MemoryObjectStore } from "@tvix/castore";
import { encodeNixbase32 } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addTree, type BridgeFixture, narOf, startBridge } from "../../test/bridge-fixture.ts";
import { pushOf, put as putFile } from "../../test/push.ts";

const HASH = "00bgd045z0d4icpbc2yyz4gx48ak44la";
const OUT_PATH = `${HASH}-built`;
const REALISATION = `sha256:${"0123456789abcdef".repeat(4)}!out`;

let bridge: BridgeFixture;
beforeEach(async () => {
  bridge = await startBridge({ maxUploadBytes: 1_000_000 });
});
afterEach(() => bridge[Symbol.asyncDispose]());

const put = (path: string, body: string | Uint8Array, headers = {}) =>
  putFile(`${bridge.url}${path}`, body, { headers });
const get = (path: string, init: RequestInit = {}) => fetch(`${bridge.url}${path}`, init);

async function expectRefused(path: string, body: string, status = 400): Promise<void> {
  expect([path, body, (await put(path, body)).status]).toEqual([path, body, status]);
  expect((await get(path)).status).toBeGreaterThanOrEqual(400);
}

describe.each([
  ["a log", `/log/${HASH}-a+b_c.drv`, "building\n", "text/plain; charset=utf-8"],
  [
    "a realisation",
    `/realisations/${REALISATION}.doi`,
    JSON.stringify({ id: REALISATION, outPath: OUT_PATH, signatures: [] }),
    "application/json",
  ],
  [
    "an entry of a build trace",
    `/build-trace-v2/${HASH}-built.drv/out.doi`,
    JSON.stringify({ outPath: OUT_PATH, signatures: [] }),
    "application/json",
  ],
  [
    "a place of debug information",
    "/debuginfo/abcdef0123.debug",
    JSON.stringify({ archive: "../nar/x.nar.xz", member: "lib/debug/x.debug" }),
    "application/json",
  ],
])("%s", (_, path, text, type) => {
  it("is served as it was pushed", async () => {
    expect((await get(path)).status).toBe(404);
    expect((await get(path, { method: "HEAD" })).status).toBe(404);
    expect((await put(path, text)).status).toBe(201);
    const response = await get(path);
    expect([response.status, await response.text()]).toEqual([200, text]);
    expect(response.headers.get("content-type")).toBe(type);
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    const head = await get(path, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length")]).toEqual([200, `${text.length}`]);
    const part = await get(path, { headers: { range: "bytes=1-3" } });
    expect([part.status, await part.text()]).toEqual([206, text.slice(1, 4)]);
    expect((await put(path, text)).status).toBe(201);
  });

  it("is decoded where it comes compressed", async () => {
    expect((await put(path, brotliCompressSync(text), { "content-encoding": "br" })).status).toBe(
      201,
    );
    expect(await (await get(path)).text()).toBe(text);
  });

  it("is refused where it is not compressed as it says, and leaves nothing", async () => {
    const damaged = gzipSync(text).subarray(0, -5);
    expect((await put(path, damaged, { "content-encoding": "gzip" })).status).toBe(400);
    expect((await get(path)).status).toBe(404);
  });

  it("is refused where it is too long, compressed or not", async () => {
    const long = `${text}${" ".repeat(2_000_000)}`;
    expect((await put(path, long)).status).toBe(413);
    expect((await put(path, gzipSync(long), { "content-encoding": "gzip" })).status).toBe(413);
    expect((await get(path)).status).toBe(404);
  });
});

describe("files that clients push", () => {
  it("have paths of their own, and stay in their folder", async () => {
    const objects = new MemoryObjectStore();
    await using other = await startBridge({ objects });
    for (const path of [
      "/log/../../x.drv",
      "/log/..%2f..%2fx.drv",
      `/log/${HASH}-x`,
      `/log/${HASH}-x%2f..%2f..drv`,
      "/log/.drv",
      "/realisations/..%2fout.doi",
      "/realisations/sha256:0!out.doi",
      "/build-trace-v2/..%2f..%2fx.drv/out.doi",
      `/build-trace-v2/${HASH}-x/out.doi`,
      `/build-trace-v2/${HASH}-x.drv/..%2fout.doi`,
      "/debuginfo/..%2f..",
      "/debuginfo/xyz",
    ]) {
      const text = JSON.stringify({ outPath: OUT_PATH, archive: "a", member: "m" });
      const { status } = await putFile(`${other.url}${path}`, text);
      expect([path, [400, 404].includes(status)]).toEqual([path, true]);
    }
    expect(await Array.fromAsync(objects.list(""))).toEqual([]);
  });

  it("are two where only an escaped character differs", async () => {
    for (const name of ["a+b", "a_2bb"]) await put(`/log/${HASH}-${name}.drv`, name);
    for (const name of ["a+b", "a_2bb"]) {
      expect(await (await get(`/log/${HASH}-${name}.drv`)).text()).toBe(name);
    }
  });

  it("may have their paths percent-encoded", async () => {
    const text = JSON.stringify({ id: REALISATION, outPath: OUT_PATH });
    const path = `/realisations/${REALISATION}.doi`;
    expect((await put(path.replace("!", "%21"), text)).status).toBe(201);
    expect(await (await get(path)).text()).toBe(text);
  });

  it("are refused where they say something else", async () => {
    const realisation = `/realisations/${REALISATION}.doi`;
    const id = REALISATION.replace("!out", "!dev");
    await expectRefused(realisation, JSON.stringify({ id, outPath: OUT_PATH }));
    await expectRefused(realisation, JSON.stringify({ id: REALISATION, outPath: "/etc/passwd" }));
    const trace = `/build-trace-v2/${HASH}-built.drv/out.doi`;
    await expectRefused(trace, JSON.stringify({ outPath: 1 }));
    const debug = "/debuginfo/abcdef.debug";
    await expectRefused(debug, JSON.stringify({ archive: "../nar/x.nar" }));
    for (const path of [realisation, trace, debug]) {
      for (const body of ["", "{", "[]", "null", '"text"']) await expectRefused(path, body);
    }
  });

  it("may have the key of an entry beside its value", async () => {
    const entry = { key: { outputName: "out" }, value: { outPath: OUT_PATH, signatures: [] } };
    const path = `/build-trace-v2/${HASH}-built.drv/out.doi`;
    expect((await put(path, JSON.stringify(entry))).status).toBe(201);
  });

  it("tell where the debug information in a store path is", async () => {
    const names = ["ab".repeat(19), "cd".repeat(19)].map((rest) => `${rest}.debug`);
    const contents = { [names[0]!]: "one", [names[1]!]: "two", "other.debug": "no build id" };
    const tree = { lib: { debug: { ".build-id": { "12": contents, no: contents } } } };
    const pushed = await pushOf("debug", tree, "zstd");
    await put(pushed.narPath, pushed.file);
    expect((await put(pushed.narInfoPath, pushed.narInfo)).status).toBe(201);
    for (const name of names) {
      const member = `lib/debug/.build-id/12/${name}`;
      const found = await (await get(`/debuginfo/12${name}`)).json();
      expect(found).toEqual({ archive: `..${pushed.narPath}`, member });
    }
    expect((await get("/debuginfo/other.debug")).status).toBe(400);
  });

  it("tell where it is in a store path that was imported", async () => {
    const rest = `${"ab".repeat(19)}.debug`;
    const tree = (text: string) => ({
      lib: { debug: { ".build-id": { "12": { [rest]: text } } } },
    });
    await addTree(bridge.services, "program", tree("not separate"));
    const { storePath, narSha256 } = await addTree(
      bridge.services,
      "program-1.0-debug",
      tree("separate"),
    );
    const hash = encodeNixbase32(storePath.hashPart);
    const archive = `../nar/${encodeNixbase32(narSha256)}.nar?hash=${hash}`;
    const found = await (await get(`/debuginfo/12${rest}`)).json();
    expect(found).toEqual({ archive, member: `lib/debug/.build-id/12/${rest}` });
    const nar = await fetch(new URL(archive, `${bridge.url}/debuginfo/x`));
    expect([nar.status, await nar.text()]).toEqual([200, expect.stringContaining("separate")]);
  });

  it("are not looked for in store paths whose directories are lost", async () => {
    const lost = { "12": { [`${"cd".repeat(19)}.debug`]: "lost" } };
    const { pathInfoService } = bridge.services;
    const elsewhere = await narOf("lost-debug", { lib: { debug: { ".build-id": lost } } });
    await pathInfoService.put(elsewhere.pathInfo);
    expect((await get(`/debuginfo/12${"cd".repeat(19)}.debug`)).status).toBe(404);
  });

  it("are found by a build id without the ending that Nix gives it", async () => {
    const text = JSON.stringify({ archive: "../nar/x.nar.xz", member: "x" });
    await put("/debuginfo/abcdef.debug", text);
    expect(await (await get("/debuginfo/abcdef")).text()).toBe(text);
  });
});

describe("the description of the cache", () => {
  it("is accepted where it says the same", async () => {
    const own = await (await get("/nix-cache-info")).text();
    for (const text of ["StoreDir: /nix/store\n", own, "Priority: 39", ""]) {
      expect([text, (await put("/nix-cache-info", text)).status]).toEqual([text, 201]);
    }
    expect(await (await get("/nix-cache-info")).text()).toBe(own);
  });

  it.each(["StoreDir: /gnu/store\n", "Priority: 1\n", "nonsense"])(
    "is refused where it says otherwise: %s",
    async (text) => {
      const response = await put("/nix-cache-info", text);
      const found = expect.stringContaining(JSON.stringify(text.trim()));
      expect([response.status, await response.text()]).toEqual([409, found]);
    },
  );
});

it("takes the listing of a store path", async () => {
  const listing = JSON.stringify({ version: 1, root: { type: "regular", size: 1 } });
  expect((await put(`/${HASH}.ls`, listing)).status).toBe(201);
  expect((await put(`/${HASH}.ls`, " ".repeat(2_000_000))).status).toBe(413);
});
