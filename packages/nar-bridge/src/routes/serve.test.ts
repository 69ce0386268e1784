import { encodeNixbase32, type PathInfo } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { addTree, type BridgeFixture, hashOf, startBridge } from "../../test/bridge-fixture.ts";

let bridge: BridgeFixture;
let pathInfo: PathInfo;
let other: PathInfo;
let root: string;

beforeAll(async () => {
  bridge = await startBridge();
  other = await addTree(bridge.services, "other", { "a b": { file: "in another" } });
  pathInfo = await addTree(bridge.services, "tree", {
    "<b>&name": "strange",
    absolute: { target: `${other.storePath.toAbsolutePath()}/a b/file` },
    doc: { "index.html": "<p>text</p>", ünï: "code" },
    escape: { target: "../../../etc/passwd" },
    folder: { target: "./doc//" },
    outside: { target: "/etc/passwd" },
    sibling: { target: `../${other.storePath}` },
    up: { up: { target: "../doc/index.html" } },
    video: Buffer.alloc(1000, "0123456789"),
  });
  root = `/serve/${hashOf(pathInfo)}`;
});
afterAll(() => bridge[Symbol.asyncDispose]());

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${bridge.url}${path}`, { headers, redirect: "manual" });

describe("a file in a store path", () => {
  it("is served with its type, and can do no harm", async () => {
    const response = await get(`${root}/doc/index.html`);
    expect(await response.text()).toBe("<p>text</p>");
    const { headers } = response;
    expect(headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toMatch(/^sandbox; default-src 'none';/);
    const unknown = await get(`${root}/video`);
    expect(unknown.headers.get("content-type")).toBe("application/octet-stream");
  });

  it("is served in part, and by names of any characters", async () => {
    const part = await get(`${root}/video`, { range: "bytes=995-" });
    expect([part.status, await part.text()]).toEqual([206, "56789"]);
    expect(await (await get(`${root}/doc/${encodeURIComponent("ünï")}`)).text()).toBe("code");
    expect(await (await get(`${root}/%3Cb%3E%26name`)).text()).toBe("strange");
  });

  it("may be the store path itself", async () => {
    const file = await addTree(bridge.services, "file.json", "{}");
    for (const slash of ["", "/"]) {
      const response = await get(`/serve/${hashOf(file)}${slash}`);
      expect([response.headers.get("content-type"), await response.text()]).toEqual([
        ...["application/json", "{}"],
      ]);
    }
  });

  it.each(["/nothing", "/video/", "/video/below", "/doc/nothing/below", "/doc//index.html"])(
    "is refused at %s",
    async (path) => {
      const { status } = await get(root + path);
      expect(status).toBe(path.includes("//") ? 400 : 404);
    },
  );

  it("is absent in a store path that is not there", async () => {
    const absent = encodeNixbase32(new Uint8Array(20));
    expect((await get(`/serve/${absent}/file`)).status).toBe(404);
    expect((await get("/serve/nonsense/file")).status).toBe(400);
  });
});

describe("a folder in a store path", () => {
  it("is found behind a slash", async () => {
    for (const [path, location] of [
      [root, `./${hashOf(pathInfo)}/`],
      [`${root}/doc`, "./doc/"],
    ] as const) {
      const response = await get(path);
      expect([response.status, response.headers.get("location")]).toEqual([302, location]);
    }
  });

  it("has an index for people, and one for programs", async () => {
    const page = await get(`${root}/`);
    expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
    const text = await page.text();
    expect(text).toContain('<a href="./doc/">doc/</a>');
    expect(text).toContain('<a href="./%3Cb%3E%26name">&#60;b&#62;&#38;name</a> (7 bytes)');
    const index = await get(`${root}/`, { accept: "application/json" });
    const { type, entries } = (await index.json()) as { type: string; entries: object };
    expect(type).toBe("directory");
    expect(entries).toMatchObject({
      doc: { type: "directory" },
      escape: { type: "symlink", target: "../../../etc/passwd" },
      video: { type: "regular", size: 1000 },
    });
    expect((await get(`${root}/`, { accept: "image/png" })).status).toBe(406);
  });
});

describe("a symlink in a store path", () => {
  it("leads to what it points to, here or in another store path", async () => {
    const there = `../${hashOf(other)}`;
    for (const [path, location] of [
      ["/folder", `../${hashOf(pathInfo)}/doc`],
      ["/folder/index.html", `../../${hashOf(pathInfo)}/doc/index.html`],
      ["/up/up", `../../${hashOf(pathInfo)}/doc/index.html`],
      ["/absolute", `${there}/a%20b/file`],
      ["/sibling/a%20b/", `../../${there}/a%20b/`],
    ] as const) {
      const response = await get(root + path);
      expect([path, response.status, response.headers.get("location")]).toEqual([
        ...[path, 302, location],
      ]);
      const followed = await fetch(`${bridge.url}${root}${path}`);
      expect(followed.status).toBe(200);
    }
    expect(await (await fetch(`${bridge.url}${root}/absolute`)).text()).toBe("in another");
  });

  it.each(["/escape", "/outside", "/outside/below"])("is refused at %s", async (path) => {
    const response = await get(root + path);
    expect([response.status, await response.text()]).toEqual([
      ...[404, expect.stringContaining("etc/passwd")],
    ]);
  });
});
