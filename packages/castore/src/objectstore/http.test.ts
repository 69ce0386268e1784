import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { afterEach, describe, expect, it, vi } from "vitest";
import { noise } from "../../test/noise.ts";
import { collectBytes, concatBytes } from "../bytes/byte-string.ts";
import { HttpObjectStore } from "./http.ts";
import { openObjectStore } from "./open.ts";

const CONTENTS = Buffer.from("the contents of an object");
const LONG = noise(3_000_000);
/** Of several parts. */
const LARGE = noise(20_000_000);

const XZ_OF_CONTENTS =
  "/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQAYdGhlIGNvbnRlbnRzIG9mIGFuIG9iamVjdAAAAAA3GuKQCBOSmgABMRlZGrCCH7bzfQEAAAAABFla";

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

/** How a server gives an object. */
interface Serving {
  readonly ranges?: boolean;
  /** What tells one version from another. */
  readonly etag?: string;
  /** Leaves out how long answers are. */
  readonly noLength?: boolean;
  /** After how many bytes the next answers break off, the first one first. */
  readonly breaks?: number[];
}

/** Serves one object, with ranges or without. */
function serving(contents: Buffer, options: Serving = {}): RequestListener {
  const { ranges = true, etag, noLength, breaks = [] } = options;
  return ({ url, headers }, response) => {
    if (url !== "/some/a/b") return response.writeHead(404).end();
    const isOther = etag && headers["if-range"] && headers["if-range"] !== etag;
    const [, first, last] =
      (ranges && !isOther && /bytes=(\d+)-(\d+)/.exec(headers.range ?? "")) || [];
    const part = first ? contents.subarray(Number(first), Number(last) + 1) : contents;
    const end = Number(first) + part.length - 1;
    if (first && part.length === 0) return response.writeHead(416).end();
    response.writeHead(first ? 206 : 200, {
      ...(first && { "content-range": `bytes ${first}-${end}/${contents.length}` }),
      ...(!noLength && { "content-length": part.length }),
      ...(etag && { etag }),
    });
    const length = breaks.shift();
    if (length === undefined) return response.end(part);
    response.write(part.subarray(0, length), () => response.destroy());
  };
}

describe.each([
  ["takes ranges", true],
  ["takes no ranges", false],
])("an object store over HTTP, whose server %s", (_, ranges) => {
  it.each<[string, Buffer, Serving?]>([
    ["short", CONTENTS],
    ["long", LONG],
    ["short", CONTENTS.subarray(0, 6), { noLength: true }],
    ["very long", LARGE],
    ["very long", LARGE, { etag: '"strong"' }],
    ["very long", LARGE, { etag: 'W/"weak"', noLength: true }],
  ])("gives a %s object, and any part of it", async (_, contents, options = {}) => {
    await using store = await storeOf(serving(contents, { ranges, ...options }));
    if (options.noLength) await expect(store.head("a/b")).rejects.toThrow("tells no length");
    else expect(await store.head("a/b")).toMatchObject({ key: "a/b", size: contents.length });
    for (const range of [{}, { offset: 3, length: 5 }, { offset: contents.length - 2 }]) {
      const { offset = 0, length = contents.length } = range as {
        offset?: number;
        length?: number;
      };
      const found = await collectBytes((await store.get("a/b", range))!);
      expect(Buffer.compare(found, contents.subarray(offset, offset + length))).toBe(0);
    }
    const behind = { offset: contents.length + 5 };
    expect(await collectBytes((await store.get("a/b", behind))!)).toHaveLength(0);
  });

  it.each<[string, Buffer, Serving & { breaks: number[] }]>([
    ["a short object", CONTENTS, { breaks: [3, 0, 5] }],
    ["an object of unknown length", CONTENTS.subarray(0, 6), { breaks: [3, 2], noLength: true }],
    ["a long object", LONG, { breaks: [1_500_000, 2_900_000] }],
    ["a very long object", LARGE, { breaks: [3, 8_000_000, 1_000_000] }],
    ["a very long object of one version", LARGE, { breaks: [9_000_000, 5], etag: '"strong"' }],
  ])("goes on with %s that breaks off", async (_, contents, options) => {
    const { breaks } = options;
    await using store = await storeOf(serving(contents, { ...options, ranges }));
    const found = await collectBytes((await store.get("a/b"))!);
    expect(Buffer.compare(found, contents)).toBe(0);
    expect(breaks).toEqual([]);
  });

  it("gives up when an answer breaks off again and again", async () => {
    let requests = 0;
    const serve = serving(LONG, { ranges, breaks: new Array(10).fill(2_000_000) });
    await using store = await storeOf((request, response) => {
      requests += 1;
      serve(request, response);
    });
    await expect(store.get("a/b")).rejects.toMatchObject({ code: "unavailable" });
    expect(requests).toBe(4);
  });

  it.each([
    ['"one"', '"two"'],
    ['W/"one"', 'W/"two"'],
  ])("says that an object of version %s was replaced while it was read", async (etag, other) => {
    let serve = serving(LARGE, { ranges, etag, breaks: ranges ? [] : [17_000_000] });
    await using store = await storeOf((request, response) => serve(request, response));
    const pieces: Uint8Array[] = [];
    const read = async () => {
      for await (const piece of (await store.get("a/b"))!) {
        pieces.push(piece);
        serve = serving(Buffer.alloc(20_000_000), { ranges, etag: other });
      }
    };
    await expect(read()).rejects.toMatchObject({ code: "aborted" });
    const found = concatBytes(pieces);
    expect(found.length).toBeGreaterThan(0);
    expect(Buffer.compare(found, LARGE.subarray(0, found.length))).toBe(0);
  });

  it("lets go of what is not read to its end", async () => {
    await using store = await storeOf(serving(LARGE, { ranges }));
    for (let i = 0; i < 10; i++) {
      for await (const _ of (await store.get("a/b"))!) break;
    }
    const open = promisify(server!.getConnections.bind(server!));
    await vi.waitFor(async () => expect(await open()).toBeLessThan(10));
  });
});

describe("an object store over HTTP whose server sends objects encoded", () => {
  const ENCODED: readonly (readonly [string, (data: Buffer) => Buffer])[] = [
    ["gzip", gzipSync],
    ["x-gzip", gzipSync],
    ["br", (data) => brotliCompressSync(data)],
    ["zstd", (data) => zstdCompressSync(data)],
    // By xz 5.4.1 of the CONTENTS above.
    ["xz", () => Buffer.from(XZ_OF_CONTENTS, "base64")],
  ];

  it.each(
    ENCODED.flatMap(([encoding, encode]) =>
      [true, false].map((ranges) => [encoding, ranges, encode] as const),
    ),
  )(
    "by %s gives it, and any part of it (it takes ranges: %s)",
    async (encoding, ranges, encode) => {
      const serve = serving(encode(CONTENTS), { ranges });
      await using store = await storeOf((request, response) => {
        response.setHeader("content-encoding", encoding);
        serve(request, response);
      });
      for (const range of [{}, { offset: 3, length: 5 }, { offset: CONTENTS.length - 2 }]) {
        const { offset = 0, length = CONTENTS.length } = range as {
          offset?: number;
          length?: number;
        };
        const found = await collectBytes((await store.get("a/b", range))!);
        expect(Buffer.from(found).toString()).toBe(
          CONTENTS.subarray(offset, offset + length).toString(),
        );
      }
      await expect(store.head("a/b")).rejects.toThrow("tells no length");
    },
  );

  it("goes on with a long one that breaks off", async () => {
    const breaks = [1_000_000, 2_500_000];
    const serve = serving(gzipSync(LARGE), { breaks });
    await using store = await storeOf((request, response) => {
      response.setHeader("content-encoding", "gzip");
      serve(request, response);
    });
    const found = await collectBytes((await store.get("a/b"))!);
    expect(Buffer.compare(found, LARGE)).toBe(0);
    expect(breaks).toEqual([]);
  });

  it("names an encoding that is not known", async () => {
    await using store = await storeOf((_, response) =>
      response.writeHead(200, { "content-encoding": "compress" }).end(CONTENTS),
    );
    const getting = store.get("a/b");
    await expect(getting).rejects.toMatchObject({
      code: "unimplemented",
      message: expect.stringContaining('found "compress"'),
    });
  });
});

describe("an object store over HTTP", () => {
  it("takes answers with 100 KB of headers", async () => {
    const serve = serving(CONTENTS);
    await using store = await storeOf((request, response) => {
      for (let i = 0; i < 20; i++) response.setHeader(`x-long-${i}`, "x".repeat(5000));
      serve(request, response);
    });
    expect(await collectBytes((await store.get("a/b"))!)).toHaveLength(CONTENTS.length);
  });

  it("has nothing that the server does not have", async () => {
    await using store = await storeOf(serving(CONTENTS));
    expect(await store.get("a/c")).toBeUndefined();
    expect(await store.head("a/c")).toBeUndefined();
  });

  it("changes and lists nothing", async () => {
    await using store = await storeOf(serving(CONTENTS));
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
      else serving(CONTENTS)(request, response);
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

  it.each([
    ["another part", "bytes 5-9/24", CONTENTS.subarray(5, 10)],
    ["no part", undefined, CONTENTS],
    ["more than the part", "bytes 2-4/24", CONTENTS],
  ])("tells a server that gives %s of what it was asked for", async (_, range, contents) => {
    await using store = await storeOf((_, response) =>
      response.writeHead(206, { ...(range && { "content-range": range }) }).end(contents),
    );
    const getting = store.get("a/b", { offset: 2, length: 3 });
    await expect(getting).rejects.toMatchObject({ code: "unavailable" });
  });

  it("asks for folders as their address names them", async () => {
    const urls: (string | undefined)[] = [];
    await using direct = await storeOf(({ url }, response) => {
      urls.push(url);
      response.writeHead(404).end();
    });
    const { host } = new URL(direct.name);
    await using store = await openObjectStore(`http://${host}/a%3Fb/c%20d%23/%C3%A4`);
    expect(await store.get("k")).toBeUndefined();
    expect(urls).toEqual(["/a%3Fb/c%20d%23/%C3%A4/k"]);
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
