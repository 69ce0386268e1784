import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { trace } from "@opentelemetry/api";
import { afterEach, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import { takeSpans } from "../../test/spans.ts";
import type { BlobService, ReadOptions } from "../blobservice/blob-service.ts";
import { ChunkList } from "../blobservice/chunk-list.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { putBlob } from "../blobservice/put-blob.ts";
import { verifiedRange } from "../blobservice/verified-range.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { rawFrame } from "../compression/zstd-frame.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { Composition, type StoreEvent } from "./composition.ts";
import { openBlobService } from "./from-addr.ts";
import { BLOB_SERVICES, DIRECTORY_SERVICES } from "./registries.ts";
import { type Registries, serviceType } from "./registry.ts";

const spans = takeSpans();
const folder = mkdtempSync(join(tmpdir(), "names-"));
afterEach(() => {
  spans.take();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

const DATA = Buffer.from("some contents");
const DIGEST = blake3Digest(DATA);
const LIST = ChunkList.of([{ digest: DIGEST, size: DATA.length }]);
const EMPTY = Directory.from([]);

/** What every call of the broken services throws: an error of its own for each. */
const damage = () => new CastoreError("data_loss", "Cannot read it: it is damaged");

async function* brokenStream<T>(first: T): AsyncGenerator<T> {
  yield first;
  throw damage();
}

/** Gives the first piece of every blob, and fails at everything else. */
class BrokenBlobService extends MemoryBlobService {
  override async has(_: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    throw damage();
  }
  override statMany = () => this.has(DIGEST) as never;
  override open = () => this.has(DIGEST) as never;
  override putList = () => this.has(DIGEST) as never;
  override frames = () => brokenStream(DATA);
  override hasMany = () => this.has(DIGEST) as never;
  override readMany = () => this.has(DIGEST) as never;
  override putMany = () => this.has(DIGEST) as never;
  override async read(_: B3Digest, options?: ReadOptions): Promise<AsyncIterable<Uint8Array>> {
    options?.signal?.throwIfAborted();
    return brokenStream(DATA);
  }
  override openWriter(): never {
    throw damage();
  }
}

/** The same of directories. */
class BrokenDirectoryService extends MemoryDirectoryService {
  override async get(): Promise<never> {
    throw damage();
  }
  override getRecursive = () => brokenStream(EMPTY);
  override openPutter() {
    const fail = async () => Promise.reject(damage());
    return { put: fail, close: fail, [Symbol.asyncDispose]: async () => undefined };
  }
}

/** Types of third parties: one that is broken, and one that tells all that it is told to. */
function registries(): Registries {
  const schema = z.strictObject({ password: z.string().optional() });
  const type = <T>(open: (context: { corrupt(text: string): void }) => T) =>
    serviceType<T, typeof schema>({
      config: ({ query }) => query,
      schema: async () => schema,
      open: async (_, context) => open(context),
    });
  const broken = type<BlobService>(() => new BrokenBlobService());
  const chatty = type<BlobService>(({ corrupt }) => {
    return new (class extends MemoryBlobService {
      override async has(): Promise<boolean> {
        corrupt("something is damaged");
        return false;
      }
    })();
  });
  const brokenDirectories = type<DirectoryService>(() => new BrokenDirectoryService());
  return {
    blobservices: { ...BLOB_SERVICES, types: { ...BLOB_SERVICES.types, broken, chatty } },
    directoryservices: {
      ...DIRECTORY_SERVICES,
      types: { ...DIRECTORY_SERVICES.types, broken: brokenDirectories },
    },
  };
}

function parse(text: string, onEvent?: (event: StoreEvent) => void): Promise<Composition> {
  return Composition.parseToml(registries(), text, { onEvent });
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

const BLOB_CALLS: Readonly<Record<string, (service: BlobService) => Promise<unknown>>> = {
  has: (service) => service.has(DIGEST),
  statMany: (service) => service.statMany([DIGEST, DIGEST]),
  open: (service) => service.open(DIGEST),
  read: async (service) => await collectBytes((await service.read(DIGEST))!),
  hasMany: (service) => service.hasMany([DIGEST, DIGEST]),
  readMany: (service) => service.readMany([{ digest: DIGEST, size: DATA.length }]),
  putMany: (service) => service.putMany([DATA, DATA, DATA]),
  putList: (service) => service.putList(DIGEST, LIST),
  frames: (service) => Array.fromAsync(service.frames(LIST)),
  openWriter: (service) => putBlob(service, DATA),
};

const DIRECTORY_CALLS: Readonly<Record<string, (service: DirectoryService) => Promise<unknown>>> = {
  get: (service) => service.get(encodeDirectory(EMPTY).digest),
  getRecursive: (service) => Array.fromAsync(service.getRecursive(encodeDirectory(EMPTY).digest)),
  openPutter: async (service) => {
    await using putter = service.openPutter();
    await putter.put(EMPTY);
    return await putter.close();
  },
};

describe("an error that comes out of a store", () => {
  const text = `
    blobservices.shelf.type = "broken"
    directoryservices.shelf.type = "broken"
  `;

  it.each([
    ...Object.entries(BLOB_CALLS).map(([name, call]) => [name, "blobservices", call] as const),
    ...Object.entries(DIRECTORY_CALLS).map(
      ([name, call]) => [name, "directoryservices", call] as const,
    ),
  ])("names it, also in %s of %s", async (_, kind, call: (service: never) => Promise<unknown>) => {
    await using composition = await parse(text);
    const service = await composition.service(kind, "shelf");
    expect(await failure(call(service as never))).toMatchObject({
      name: "CastoreError",
      code: "data_loss",
      message: "shelf: Cannot read it: it is damaged",
      store: "shelf",
    });
  });

  it("names the innermost of stores that are made of others, once", async () => {
    await using composition = await parse(`
      ${text}
      [blobservices.default]
      type = "combined"
      near = "memory://"
      far = "combined://?near=memory://&far=shelf"
    `);
    const service = await composition.service("blobservices");
    expect(await failure(service.has(DIGEST))).toMatchObject({
      message: "shelf: Cannot read it: it is damaged",
      store: "shelf",
    });
  });

  it("has the address of a store without a name, without its keys", async () => {
    await using composition = new Composition(registries());
    const service = await composition.service("blobservices", "broken://?password=hunter2");
    expect(await failure(service.has(DIGEST))).toMatchObject({
      message: "broken://?...: Cannot read it: it is damaged",
      store: "broken://?...",
    });
  });

  it("does not say an address twice that its message has", async () => {
    await using service = await openBlobService("grpc+http://127.0.0.1:1");
    const error = await failure(service.has(DIGEST));
    expect(error).toMatchObject({ code: "unavailable", store: "grpc+http://127.0.0.1:1" });
    expect(String(error).split("grpc+http://127.0.0.1:1")).toHaveLength(2);
  });

  it("names it when it cannot be opened", async () => {
    await using composition = await parse(`
      [blobservices.default]
      type = "combined"
      near = "packs"
      far = "pack://${folder}?avg_chunk_size=1000"
      [blobservices.packs]
      type = "pack"
      path = "${folder}/packs"
      avg_chunk_size = 1000
    `);
    const packs = "Cannot open [blobservices.packs]: Cannot cut into chunks of 1000 bytes";
    expect(await failure(composition.service("blobservices"))).toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(`Cannot open [blobservices.default]: ${packs}`),
      store: "packs",
    });
    const address = `pack://${folder}?avg_chunk_size=1000`;
    expect(await failure(composition.service("blobservices", address))).toMatchObject({
      message: expect.stringMatching(/^pack:\/\/.*\?\.\.\.: Cannot cut into chunks/),
    });
  });

  it("is left alone if it is why the call was cancelled", async () => {
    await using composition = await parse(text);
    const service = await composition.service("blobservices", "shelf");
    const reason = new CastoreError("aborted", "enough");
    const signal = AbortSignal.abort(reason);
    expect(await failure(service.has(DIGEST, { signal }))).toBe(reason);
    expect(await failure(service.read(DIGEST, { signal }))).toBe(reason);
    expect(reason).toMatchObject({ message: "enough", store: undefined });
    expect(spans.take().map(({ attributes }) => attributes)).toEqual([
      expect.objectContaining({ "tvix.cancelled": true }),
      expect.objectContaining({ "tvix.cancelled": true }),
    ]);
  });
});

describe("what a store tells of", () => {
  it("is told with its name to whoever made the composition", async () => {
    const events: StoreEvent[] = [];
    await using composition = await parse(
      `
        blobservices.chatty.type = "chatty"
        blobservices.shelf.type = "broken"
        [blobservices.default]
        type = "combined"
        near = "shelf"
        far = "chatty"
      `,
      (event) => events.push(event),
    );
    const service = await composition.service("blobservices");
    await service.hasMany([DIGEST]);
    expect(events).toEqual([
      {
        type: "warning",
        kind: "blobservices",
        store: "default",
        message: "Cannot look up blobs in the local store: shelf: Cannot read it: it is damaged",
      },
      { type: "corrupt", kind: "blobservices", store: "chatty", message: "something is damaged" },
    ]);
  });

  it("is a process warning unless somebody wants to know", async () => {
    const warn = vi.spyOn(process, "emitWarning").mockReturnValue(undefined);
    await using service = await new Composition(registries()).service("blobservices", "chatty://");
    await service.has(DIGEST);
    expect(warn).toHaveBeenCalledExactlyOnceWith("chatty://: something is damaged");
  });

  it.each([
    ["pack", (path: string) => `pack://${path}`],
    ["objectstore", (path: string) => `objectstore+file://${path}`],
  ])("is damage that is met in %s", async (_, addressIn) => {
    const events: StoreEvent[] = [];
    const address = addressIn(folder);
    let digest: B3Digest;
    {
      await using service = await openBlobService(address);
      digest = await putBlob(service, DATA);
    }
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.name.includes("sqlite")) continue;
      const path = join(entry.parentPath, entry.name);
      const bytes = readFileSync(path);
      writeFileSync(path, bytes.fill(0x55, Math.max(0, bytes.length - 4)));
    }
    const onEvent = (event: StoreEvent) => void events.push(event);
    await using service = await openBlobService(address, { onEvent });
    const reading = async () => await collectBytes((await service.read(digest))!);
    await failure(reading());
    expect(events[0]).toMatchObject({ type: "corrupt", kind: "blobservices", store: address });
    expect(events[0]!.message).toContain(digest.toString());
  });
});

describe("a call of a store", () => {
  it.each(Object.keys(BLOB_CALLS))("is a span with the name of the store: %s", async (method) => {
    await using composition = await parse(`blobservices.shelf.type = "memory"`);
    const service = await composition.service("blobservices", "shelf");
    await putBlob(service, DATA);
    spans.take();
    await BLOB_CALLS[method]!(service);
    const { parent, ...span } = spans.take().at(-1)!;
    const about = {
      hasMany: { "tvix.count": 2 },
      statMany: { "tvix.count": 2 },
      readMany: { "tvix.count": 1 },
      putMany: { "tvix.count": 3 },
      frames: { "tvix.count": 1, "tvix.bytes": rawFrame(DATA).length },
      read: { "tvix.digest": `${DIGEST}`, "tvix.bytes": DATA.length },
      openWriter: { "tvix.digest": `${DIGEST}`, "tvix.bytes": DATA.length },
    }[method] ?? { "tvix.digest": `${DIGEST}` };
    expect([parent, span]).toEqual([
      undefined,
      { name: `BlobService.${method}`, attributes: { "tvix.store.name": "shelf", ...about } },
    ]);
    expect(spans.open).toBe(0);
  });

  it.each(Object.keys(DIRECTORY_CALLS))("is a span also of directories: %s", async (method) => {
    await using composition = await parse(`directoryservices.shelf.type = "memory"`);
    const service = await composition.service("directoryservices", "shelf");
    await DIRECTORY_CALLS.openPutter!(service);
    spans.take();
    await DIRECTORY_CALLS[method]!(service);
    const attributes = {
      "tvix.store.name": "shelf",
      "tvix.digest": `${encodeDirectory(EMPTY).digest}`,
      ...(method !== "get" && { "tvix.count": 1 }),
    };
    expect(spans.take()).toEqual([
      { name: `DirectoryService.${method}`, attributes, parent: undefined },
    ]);
  });

  it.each(Object.keys(BLOB_CALLS))("that fails is a span with its code: %s", async (method) => {
    await using composition = await parse(`blobservices.shelf.type = "broken"`);
    const service = await composition.service("blobservices", "shelf");
    await failure(BLOB_CALLS[method]!(service));
    expect(spans.raw).toMatchObject([
      {
        name: `BlobService.${method}`,
        attributes: { "tvix.store.name": "shelf", "error.type": "data_loss" },
        status: { message: "shelf: Cannot read it: it is damaged" },
        events: [{ name: "exception" }],
      },
    ]);
    expect(spans.open).toBe(0);
  });

  it("lasts until its stream is left, or its writer dropped", async () => {
    await using composition = new Composition(registries());
    const blobs = await composition.service("blobservices", "memory://");
    const directories = await composition.service("directoryservices", "memory://");
    await putBlob(blobs, DATA);
    const root = (await DIRECTORY_CALLS.openPutter!(directories)) as B3Digest;
    spans.take();
    const stream = (await blobs.read(DIGEST))!;
    const tree = directories.getRecursive(root);
    const writer = blobs.openWriter();
    const putter = directories.openPutter();
    await writer.write(DATA);
    expect([spans.open, spans.take()]).toEqual([3, []]); // nothing was asked of the tree
    for await (const _ of stream) break;
    for await (const _ of tree) break;
    await writer[Symbol.asyncDispose]();
    await putter[Symbol.asyncDispose]();
    expect([spans.open, spans.take().map(({ name }) => name)]).toEqual([
      0,
      [
        "BlobService.read",
        "DirectoryService.getRecursive",
        "BlobService.openWriter",
        "DirectoryService.openPutter",
      ],
    ]);
  });

  it("has the calls of the stores that it is made of in it", async () => {
    await using composition = await parse(`
      blobservices.disk.type = "memory"
      blobservices.bucket.type = "memory"
      [blobservices.default]
      type = "combined"
      near = "disk"
      far = "bucket"
    `);
    const service = await composition.service("blobservices");
    await trace.getTracer("test").startActiveSpan("the caller", async (span) => {
      await service.putMany([DATA]);
      span.end();
    });
    const taken = spans.take();
    const around = Object.fromEntries(
      taken.map(({ name, attributes, parent }) => [
        attributes["tvix.store.name"] ?? name,
        `${name} in ${parent}`,
      ]),
    );
    expect(around).toMatchObject({
      default: "BlobService.putMany in the caller",
      bucket: expect.stringMatching(/^BlobService.putMany in/),
      disk: expect.stringMatching(/^BlobService.putMany in/),
    });
    expect(spans.open).toBe(0);
  });

  it("hands on what is special of a store: an outboard, if it has one", async () => {
    const blob = Buffer.alloc(100_000, "blob");
    const asked: string[] = [];
    class Source extends MemoryBlobService {
      async outboard(digest: B3Digest): Promise<Outboard | undefined> {
        asked.push(digest.hex);
        return undefined;
      }
    }
    const type = serviceType({
      config: () => ({}),
      schema: async () => z.strictObject({}),
      open: async () => new Source(),
    });
    const blobservices = { ...BLOB_SERVICES, types: { ...BLOB_SERVICES.types, source: type } };
    await using composition = new Composition({ blobservices });
    for (const address of ["memory://", "source://"]) {
      const service = await composition.service("blobservices", address);
      const digest = await putBlob(service, blob);
      const range = (await verifiedRange(service, digest, { offset: 40_000, length: 10 }))!;
      expect(await collectBytes(range)).toEqual(new Uint8Array(blob.subarray(40_000, 40_010)));
    }
    expect(asked).toHaveLength(1);
  });
});

describe("a secret in a composition", () => {
  it("is in no event, no error and no span", async () => {
    const secret = "hunter2";
    const events: StoreEvent[] = [];
    const errors: unknown[] = [];
    await using composition = await parse(
      `
        [blobservices.default]
        type = "combined"
        near = "broken://?password=${secret}"
        far = "combined://?near=chatty://?password=${secret}&far=bucket"
        [blobservices.bucket]
        type = "broken"
        password = "${secret}"
        [blobservices.misspelt]
        type = "combined"
        near = "memory://"
        far = "objectstore+s3://bucket?secret_key=${secret}"
        [blobservices.unencoded]
        type = "combined"
        near = "memory://"
        far = "objectstore+s3://bucket?endpoint=%23${secret}"
        [directoryservices.default]
        type = "cache"
        near = "broken://?password=${secret}"
        far = "broken://?password=${secret}"
      `,
      (event) => events.push(event),
    );
    const blobs = await composition.service("blobservices");
    for (const call of Object.values(BLOB_CALLS)) errors.push(await failure(call(blobs)));
    const directories = await composition.service("directoryservices");
    for (const call of Object.values(DIRECTORY_CALLS)) {
      errors.push(await failure(call(directories)));
    }
    for (const reference of [
      "misspelt",
      "unencoded",
      `broken://?password=a&password=${secret}`,
      `broken://?password=a#${secret}`,
      `broken://?password=%ff${secret}`,
      `broken://me:${secret}@host`,
      `broken:?password=${secret}`,
      `broken://[?password=${secret}`,
      `redb:?password=${secret}`,
    ]) {
      errors.push(await failure(composition.service("blobservices", reference)));
    }
    const told = events.length;
    expect([told > 0, errors.length, spans.raw.length > 0]).toEqual([true, 22, true]);
    expect(errors.every((error) => error instanceof CastoreError)).toBe(true);
    const exported = spans.raw.map(({ name, attributes, status, events, resource }) => {
      return { name, attributes, status, events, resource: resource.attributes };
    });
    const all = inspect({ events, errors, exported }, { depth: 20, maxArrayLength: null });
    expect(all).not.toContain(secret);
  });
});
