import { tmpdir } from "node:os";
import { inspect } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { z } from "zod";
import type { BlobService } from "../blobservice/blob-service.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { putBlob } from "../blobservice/put-blob.ts";
import { unlessAborted } from "../bytes/abort.ts";
import { Composition } from "./composition.ts";
import { BLOB_SERVICES, DIRECTORY_SERVICES } from "./registries.ts";
import { type Registries, serviceType } from "./registry.ts";

/** What happened to the services of the test's own type, in order. */
class Log {
  readonly lines: string[] = [];
  readonly #go = Promise.withResolvers<void>();

  /** Lets the slow ones be opened. */
  go(): void {
    this.#go.resolve();
  }

  /** The registries with a type of a third party: a service that is made of others. */
  registries(): Registries {
    const { lines } = this;
    const { promise: go } = this.#go;
    const schema = z.strictObject({
      parts: z.string().default(""),
      broken: z.boolean().default(false),
      slow: z.string().optional(),
    });
    const pile = serviceType<BlobService, typeof schema>({
      schemes: ["pile"],
      config: ({ query }) => query,
      schema: async () => schema,
      async open({ parts, broken, slow }, { name, service, signal }) {
        for (const part of parts.split(" ").filter((part) => part !== "")) {
          await service("blobservices", part);
        }
        if (slow) {
          lines.push(`wait for ${name}`);
          await unlessAborted(go, signal);
          lines.pop();
        }
        if (broken) throw new Error(`${name} is broken`);
        lines.push(`open ${name}`);
        return new (class extends MemoryBlobService {
          override async [Symbol.asyncDispose]() {
            lines.push(`close ${name}`);
          }
        })();
      },
    });
    const blobservices = { ...BLOB_SERVICES, types: { ...BLOB_SERVICES.types, pile } };
    return { blobservices, directoryservices: DIRECTORY_SERVICES };
  }

  parse(text: string): Promise<Composition> {
    return Composition.parseToml(this.registries(), text);
  }
}

const refused = (reason: string | RegExp) =>
  expect.objectContaining({
    name: "CastoreError",
    code: "invalid_argument",
    message: expect.stringMatching(reason),
  });

describe("a composition", () => {
  it("opens what is asked for, and what that is made of, and closes them the other way round", async () => {
    const log = new Log();
    {
      await using composition = await log.parse(`
        [blobservices.default]
        type = "pile"
        parts = "one two"
        [blobservices.one]
        type = "pile"
        parts = "two"
        [blobservices.two]
        type = "pile"
        [blobservices.unused]
        type = "pile"
      `);
      await composition.service("blobservices");
      expect(log.lines).toEqual(["open two", "open one", "open default"]);
      log.lines.length = 0;
    }
    expect(log.lines).toEqual(["close default", "close one", "close two"]);
  });

  it("opens a named service once, however many ask for it at the same time", async () => {
    const log = new Log();
    await using composition = await log.parse(`
      [blobservices.shared]
      type = "pile"
      [blobservices.one]
      type = "pile"
      parts = "shared"
      [blobservices.two]
      type = "pile"
      parts = "shared"
    `);
    const names = ["one", "two", "shared", "one"];
    const opened = await Promise.all(
      names.map((name) => composition.service("blobservices", name)),
    );
    expect(opened[0]).toBe(opened[3]);
    expect(log.lines.toSorted()).toEqual(["open one", "open shared", "open two"]);
  });

  it("opens one for each who gives an address", async () => {
    await using composition = new Composition(new Log().registries());
    const one = await composition.service("blobservices", "memory://");
    const other = await composition.service("blobservices", "memory://");
    const digest = await putBlob(one, Buffer.from("only here"));
    expect([await one.has(digest), await other.has(digest)]).toEqual([true, false]);
  });

  it("takes the service that is called root where none is called default", async () => {
    const log = new Log();
    await using composition = await log.parse(`blobservices.root.type = "pile"`);
    await composition.service("blobservices");
    expect(log.lines).toEqual(["open root"]);
  });

  it.each([
    ["itself", { a: "a" }, /\[blobservices.a\] -> \[blobservices.a\]/],
    ["one another", { a: "b", b: "c", c: "a" }, /a\] -> .*b\] -> .*c\] -> .*a\]|c\] -> .*a\] -> /],
  ])("prints the cycle of services that are made of %s", async (_, parts, cycle) => {
    const tables = Object.entries(parts).map(
      ([name, part]) => `[blobservices.${name}]\ntype = "pile"\nparts = "${part}"`,
    );
    await using composition = await new Log().parse(tables.join("\n"));
    await expect(composition.service("blobservices", "a")).rejects.toThrow(refused(cycle));
    // From all sides at once nobody waits for ever.
    const all = Object.keys(parts).map((name) => composition.service("blobservices", name));
    for (const { status } of await Promise.allSettled(all)) expect(status).toBe("rejected");
  });

  it("says by which addresses a named service is made of itself", async () => {
    await using composition = await new Log().parse(`
      [blobservices.default]
      type = "combined"
      near = "memory://"
      far = "combined://?near=default&far=memory://&mode=near-only"
    `);
    await expect(composition.service("blobservices")).rejects.toThrow(
      "[blobservices.default] -> combined://?... -> [blobservices.default]",
    );
  });

  it("closes what was opened for a service that failed to open", async () => {
    const log = new Log();
    {
      await using composition = await log.parse(`
        [blobservices.default]
        type = "pile"
        parts = "part pile://"
        broken = true
        [blobservices.part]
        type = "pile"
      `);
      await expect(composition.service("blobservices")).rejects.toThrow("default is broken");
    }
    expect(log.lines).toEqual(["open part", "open pile://", "close pile://", "close part"]);
  });

  it("names the service in an error of what it is made of", async () => {
    await using composition = await new Log().parse(`
      [blobservices.default]
      type = "pile"
      parts = "pack://${tmpdir()}/never-made?avg_chunk_size=1000"
    `);
    await expect(composition.service("blobservices")).rejects.toThrow(
      refused(/^Cannot open \[blobservices.default\]: .*power of two/),
    );
  });

  it("never repeats the keys of an address, which may be secret", async () => {
    await using composition = new Composition(new Log().registries());
    const opening = composition.service("blobservices", "pile://?parts=&password=hunter2");
    await expect(opening).rejects.toThrow(refused(/"pile:\/\/\?\.\.\."/));
    await expect(opening).rejects.not.toThrow("hunter2");
  });

  it.each([
    "[blobservices.a]\ntype = 'memory'\nsecret = 'HUNTER2",
    "[blobservices.a]\ntype = 'memory'\nsecret = HUNTER2",
    "[blobservices.a]\ntype = 'memory'\nsecret = 'HUNTER2'\nsecret = 'HUNTER2'",
    "[blobservices.a]\ntype = 'memory'\nsecret = 'HUNTER2'",
    "[blobservices.a]\ntype = 5\nsecret = 'HUNTER2'",
    "[blobservices.a]\ntype = 'memory'\nsecret.'HUNTER2",
  ])("repeats nothing that may be secret of %j", async (text) => {
    const error: unknown = await new Log().parse(text).catch((error: unknown) => error);
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(inspect(error)).not.toContain("HUNTER2");
  });

  it("says where a file is no TOML", async () => {
    const parsed = new Log().parse("[blobservices.a]\ntype = 'memory'\ncolour = ");
    await expect(parsed).rejects.toThrow(refused(/line 3, column \d+: expected TOML/));
  });

  it.each([
    ["[blobservices", /composition: /],
    ["[blobservices.a]\ncolour = 1", "blobservices.a.type"],
    ["[storage.a]\ntype = 'memory'", /"storage".*expected blobservices, directoryservices/],
    ["[blobservices.a]\ntype = 'sqlite'", /blobservices.a.*\(memory, pack, .*found "sqlite"/],
    ["[blobservices.a]\ntype = 'redb'", /"redb" is not offered, use "pack"/],
    ["[blobservices.a]\ntype = 'memory'\ncolour = 1", /blobservices.a.*"colour"/],
    ["[blobservices.a]\ntype = 'pack'", /blobservices.a.*"path"/],
    ["[blobservices.a]\ntype = 'pack'\npath = '/x'\nzstd_level = 'fast'", /"zstd_level"/],
    ["[blobservices.a]\ntype = 'pack'\npath = '/x'\nzstd_level = [3]", /"zstd_level".*1 to 22/],
    ["[blobservices.a]\ntype = 'pack'\npath = '/x'\nzstd_level = 2.5", /"zstd_level"/],
    ["[blobservices.a]\ntype = 'pack'\npath = '/x'\nmax_pack_size = true", /"max_pack_size"/],
    ["[blobservices.a]\ntype = 'pack'\npath = '/x'\navg_chunk_size = ''", /"avg_chunk_size"/],
    ["[directoryservices.a]\ntype = 'sqlite'\npath = 'relative'", /"path"/],
  ])("refuses %j", async (text, reason) => {
    await expect(new Log().parse(text)).rejects.toThrow(refused(reason));
  });

  it.each([
    [
      "blobservices",
      undefined,
      /expected a blob service \[blobservices.default\], found one, two$/,
    ],
    ["blobservices", "three", /\[blobservices.three\].*\(one, two\), found "three"$/],
    [
      "directoryservices",
      undefined,
      /a directory service \[directoryservices.default\], found none$/,
    ],
  ] as const)("says what there is in %s where there is no %s", async (kind, name, reason) => {
    await using composition = await new Log().parse(
      "blobservices.one.type = 'memory'\nblobservices.two.type = 'memory'",
    );
    await expect(composition.service(kind, name)).rejects.toThrow(refused(reason));
  });

  it("rejects with the reason when it is cancelled before", async () => {
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await using composition = new Composition(new Log().registries());
    for (const reference of ["memory://", "unknown"]) {
      const opening = composition.service("blobservices", reference, { signal });
      await expect(opening).rejects.toBe(reason);
    }
  });

  it("lets one who waits for a service give up without the others", async () => {
    const log = new Log();
    await using composition = await log.parse(
      "blobservices.default = { type = 'pile', slow = 'yes' }",
    );
    const [first, last] = [new AbortController(), new AbortController()];
    const open = (signal?: AbortSignal) =>
      composition.service("blobservices", "default", { signal });
    const [given, awaited, late] = [open(first.signal), open(), open(last.signal)];
    first.abort(new Error("not I"));
    await expect(given).rejects.toThrow("not I");
    last.abort(new Error("nor I"));
    await expect(late).rejects.toThrow("nor I");
    log.go();
    expect(await awaited).toBe(await open());
    expect(log.lines).toEqual(["open default"]);
  });

  it("gives up what is being opened when it is disposed of, and opens nothing any more", async () => {
    const log = new Log();
    const composition = await log.parse(`
      [blobservices.default]
      type = "pile"
      parts = "part slow"
      [blobservices.part]
      type = "pile"
      [blobservices.slow]
      type = "pile"
      slow = "yes"
    `);
    const opening = composition.service("blobservices");
    await vi.waitFor(() => expect(log.lines).toEqual(["open part", "wait for slow"]));
    const disposed = Promise.all([
      composition[Symbol.asyncDispose](),
      composition[Symbol.asyncDispose](),
    ]);
    await expect(opening).rejects.toThrow(refused(/expected an open composition/));
    await disposed;
    for (const reference of ["part", "default", "memory://"]) {
      const late = composition.service("blobservices", reference);
      await expect(late).rejects.toThrow(refused(/expected an open composition/));
    }
    expect(log.lines).toEqual(["open part", "wait for slow", "close part"]);
  });
});
