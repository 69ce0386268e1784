import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { collectBytes } from "../bytes.ts";
import { HttpObjectStore } from "./http.ts";

const CONTENTS = Buffer.from("the contents of an object");

let server: Server | undefined;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function storeOf(listener: RequestListener): Promise<HttpObjectStore> {
  server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  return new HttpObjectStore(`http://127.0.0.1:${(server.address() as AddressInfo).port}/some/`);
}

/** Serves one object, with ranges or without. */
function serving(contents: Buffer, ranges: boolean): RequestListener {
  return ({ url, headers }, response) => {
    if (url !== "/some/a/b") return response.writeHead(404).end();
    const [, first, last] = /bytes=(\d+)-(\d+)/.exec(headers.range ?? "") ?? [];
    if (!ranges || first === undefined) {
      return response.writeHead(200, { "content-length": contents.length }).end(contents);
    }
    const part = contents.subarray(Number(first), Number(last) + 1);
    if (part.length === 0) return response.writeHead(416).end();
    return response.writeHead(206, { "content-length": part.length }).end(part);
  };
}

describe.each([
  ["takes ranges", true],
  ["takes no ranges", false],
])("an object store over HTTP, whose server %s", (_, ranges) => {
  it.each([
    ["short", CONTENTS],
    ["long", Buffer.alloc(3_000_000, CONTENTS)],
  ])("gives a %s object, and any part of it", async (_, contents) => {
    await using store = await storeOf(serving(contents, ranges));
    expect(await store.head("a/b")).toEqual({ key: "a/b", size: contents.length });
    for (const range of [{}, { offset: 3, length: 5 }, { offset: contents.length - 2 }]) {
      const { offset = 0, length = contents.length } = range as {
        offset?: number;
        length?: number;
      };
      const found = await collectBytes((await store.get("a/b", range))!);
      expect(Buffer.compare(found, contents.subarray(offset, offset + length))).toBe(0);
    }
    expect(await collectBytes((await store.get("a/b", { offset: 5_000_000 }))!)).toHaveLength(0);
  });
});

describe("an object store over HTTP", () => {
  it("has nothing that the server does not have", async () => {
    await using store = await storeOf(serving(CONTENTS, true));
    expect(await store.get("a/c")).toBeUndefined();
    expect(await store.head("a/c")).toBeUndefined();
  });

  it("changes and lists nothing", async () => {
    await using store = await storeOf(serving(CONTENTS, true));
    const unimplemented = expect.objectContaining({ code: "unimplemented" });
    await expect(store.put()).rejects.toThrow(unimplemented);
    await expect(store.delete()).rejects.toThrow(unimplemented);
    expect(() => store.openUpload()).toThrow(unimplemented);
    expect(() => store.list()).toThrow(unimplemented);
  });

  it("tries again what fails, a few times", async () => {
    let requests = 0;
    await using store = await storeOf((request, response) => {
      requests += 1;
      if (requests < 3) response.writeHead(503).end();
      else serving(CONTENTS, true)(request, response);
    });
    expect(await collectBytes((await store.get("a/b"))!)).toHaveLength(CONTENTS.length);
    expect(requests).toBe(3);
    requests = -100;
    await expect(store.get("a/b")).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("answered 503"),
    });
    expect(requests).toBe(-96);
  });

  it("tries again what breaks off", async () => {
    let requests = 0;
    await using store = await storeOf((request, response) => {
      requests += 1;
      if (requests > 1) return void serving(CONTENTS, true)(request, response);
      response.writeHead(200, { "content-length": CONTENTS.length });
      response.write(CONTENTS.subarray(0, 3), () => response.destroy());
    });
    expect(await collectBytes((await store.get("a/b"))!)).toHaveLength(CONTENTS.length);
  });

  it("tells what it may not read", async () => {
    await using store = await storeOf((_, response) => response.writeHead(403).end());
    await expect(store.get("a/b")).rejects.toMatchObject({ code: "permission_denied" });
  });

  it("rejects with the reason when it is cancelled while the server is silent", async () => {
    await using store = await storeOf(() => undefined);
    const controller = new AbortController();
    const reason = new Error("enough");
    const getting = store.get("a/b", { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    await expect(getting).rejects.toBe(reason);
  });
});
