import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type BlobService,
  blake3Digest,
  ChunkList,
  collectBytes,
  copyBlob,
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  openBlobService,
  openDirectoryService,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { openChannel } from "@tvix/castore/grpc";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import {
  BlobBatchService,
  BlobService as BlobServiceDescriptor,
  DirectoryBatchService,
  DirectoryService as DirectoryServiceDescriptor,
} from "@tvix/proto/castore";
import {
  openPathInfoService,
  type PathInfo,
  pathInfoToProto,
  RenderingNarCalculationService,
  StorePath,
} from "@tvix/store";
import { GrpcNarCalculationService } from "@tvix/store/grpc";
import { storeServices } from "@tvix/store/rpc";
import { describe, expect, it } from "vitest";
import { seededBytes } from "../src/index.ts";
import { cutLink } from "./cut-link.ts";
import { disposingOf, serve } from "./grpc-over.ts";

const CONTENTS = seededBytes("contents", 20_000_000);
const DIGEST = blake3Digest(CONTENTS);
const NONE = new Uint8Array(0);
const dataLoss = { name: "CastoreError", code: "data_loss" };

type Answers = Readonly<Record<string, unknown>>;

/** A method that a server does not have. */
const lacking = () => {
  throw new ConnectError("no such method", Code.Unimplemented);
};

/** A batch service of a server that lists no chunks, such as an older one. */
const LISTLESS: Answers = { listChunks: lacking };

/** Services with some methods that violate the contract. */
function hostile(
  answers: { blobs?: Answers; batches?: Answers; directories?: Answers; trees?: Answers },
  blobService: BlobService = new MemoryBlobService(),
): readonly ServedService[] {
  const batches = answers.batches ?? (answers.blobs?.stat && LISTLESS);
  const changed = new Map<unknown, Answers | undefined>([
    [BlobServiceDescriptor, answers.blobs],
    [BlobBatchService, batches as Answers | undefined],
    [DirectoryServiceDescriptor, answers.directories],
    [DirectoryBatchService, answers.trees],
  ]);
  const services = castoreServices({ blobService, directoryService: new MemoryDirectoryService() });
  return services.map((served) => {
    const implementation = { ...served.implementation, ...changed.get(served.service) };
    return { ...served, implementation, encoders: {} } as unknown as ServedService;
  });
}

/** A client of a server that answers as it should not. */
async function clientOf<Service extends AsyncDisposable>(
  services: readonly ServedService[],
  open: (address: string) => Promise<Service>,
): Promise<Service> {
  const server = await serve(services, "streams");
  return disposingOf(await open(server.address), server);
}

const blobsOf = (...args: Parameters<typeof hostile>) =>
  clientOf(hostile(...args), openBlobService);
const directoriesOf = (directories: Answers) =>
  clientOf(hostile({ directories }), openDirectoryService);

type Listed = readonly (readonly [digest: Uint8Array, size: bigint])[];

const listing = (...chunks: Listed) => ({
  stat: async () => ({ chunks: chunks.map(([digest, size]) => ({ digest, size })), bao: NONE }),
});

/** The same list in the packed form of our servers. */
const packed = (chunks: Listed): Answers => ({
  async *listChunks() {
    for (const [digest, size] of chunks) {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(Number(BigInt.asUintN(32, size)));
      yield { chunks: Buffer.concat([digest, length]) };
    }
  },
});

describe("a list of chunks of a server", () => {
  const other = blake3Digest(Buffer.from("other")).bytes;
  it.each([
    ["with a digest of 5 bytes", [[new Uint8Array(5), 3n]]],
    [
      "with an empty chunk",
      [
        [DIGEST.bytes, 3n],
        [other, 0n],
      ],
    ],
    [
      "with a chunk of more than 8 MiB",
      [
        [other, 8n * 1024n ** 2n + 1n],
        [other, 1n],
      ],
    ],
    [
      "with a chunk of 2^64-1 bytes",
      [
        [other, 2n ** 64n - 1n],
        [other, 1n],
      ],
    ],
    ["with a chunk that is not the whole blob alone", [[other, 3n]]],
  ] as const)("%s is refused", async (_, chunks) => {
    for (const answers of [{ blobs: listing(...chunks) }, { batches: packed(chunks) }]) {
      await using client = await blobsOf(answers);
      await expect(client.open(DIGEST)).rejects.toMatchObject(dataLoss);
      await expect(client.read(DIGEST, { offset: 1 })).rejects.toMatchObject(dataLoss);
    }
  });
});

describe("a chunk of a server", () => {
  it("that is longer than listed is read no further", async () => {
    let sent = 0;
    await using client = await blobsOf({
      blobs: {
        ...listing([new Uint8Array(32), 3n], [new Uint8Array(32).fill(1), 3n]),
        async *read() {
          for (let i = 0; i < 600; i++) {
            sent += 1_000_000;
            yield { data: new Uint8Array(1_000_000) };
          }
        },
      },
    });
    const contents = (await client.read(DIGEST, { offset: 1, length: 2 }))!;
    await expect(collectBytes(contents)).rejects.toMatchObject(dataLoss);
    expect(sent).toBeLessThan(50_000_000);
  });

  it.each([
    ["shorter than listed", CONTENTS.subarray(0, 1000), 1001n],
    ["another", CONTENTS.subarray(1, 1001), 1000n],
  ])("that is %s is refused", async (_, data, size) => {
    const { bytes } = blake3Digest(CONTENTS.subarray(0, 1000));
    await using client = await blobsOf({
      blobs: {
        ...listing([bytes, size], [new Uint8Array(32), 3n]),
        async *read() {
          yield { data };
        },
      },
    });
    const contents = (await client.read(DIGEST, { offset: 1, length: 2 }))!;
    await expect(collectBytes(contents)).rejects.toMatchObject(dataLoss);
  });
});

describe("what a server says that it has stored", () => {
  it.each([
    ["no digest", new Uint8Array(7)],
    ["of something else", new Uint8Array(32)],
  ])("is refused if it is %s", async (_, digest) => {
    const put = async (messages: AsyncIterable<unknown>) => {
      for await (const _ of messages);
      return { digest, rootDigest: digest };
    };
    await using blobs = await blobsOf({ blobs: { put } });
    await expect(putBlob(blobs, Buffer.alloc(100_000))).rejects.toMatchObject(dataLoss);
    await using directories = await directoriesOf({ put });
    await using putter = directories.openPutter();
    await putter.put(Directory.from([]));
    await expect(putter.close()).rejects.toMatchObject(dataLoss);
    await using batches = await blobsOf({ batches: { put: async () => ({ digests: [digest] }) } });
    await expect(batches.putMany([Buffer.from("x")])).rejects.toMatchObject(dataLoss);
    await expect(putBlob(batches, Buffer.from("x"))).rejects.toMatchObject(dataLoss);
  });
});

describe("a batch of a server", () => {
  const contents = Buffer.from("contents");
  const blob = { digest: blake3Digest(contents), size: contents.length };
  const answer = { present: true, contents };

  it.each([
    ["too few answers", []],
    ["too many answers", [answer, answer]],
    ["other contents", [{ present: true, contents: Buffer.from("CONTENTS") }]],
  ])("with %s is refused", async (_, blobs) => {
    await using client = await blobsOf({
      batches: {
        read: async () => ({ blobs }),
        has: async () => ({ present: blobs.map(() => true) }),
        put: async () => ({ digests: blobs.map(() => new Uint8Array(32)) }),
      },
    });
    await expect(client.readMany([blob])).rejects.toMatchObject(dataLoss);
    if (blobs.length !== 1) {
      await expect(client.hasMany([blob.digest])).rejects.toMatchObject(dataLoss);
      await expect(client.putMany([contents])).rejects.toMatchObject(dataLoss);
    }
  });

  it("does not give a blob of another length than asked for", async () => {
    await using client = await blobsOf({ batches: { read: async () => ({ blobs: [answer] }) } });
    const found = await client.readMany([{ ...blob, size: 7 }]);
    expect(found).toEqual([undefined]);
  });
});

describe("the length of a blob, as a server states it,", () => {
  const present = true;
  it.each([
    ["is refused without an answer", []],
    ["is refused with an answer too many", [{ present }, { present }]],
    [
      "is refused where chunks are longer than they may be",
      [{ present, size: 2n ** 30n, chunks: 1n }],
    ],
    ["is refused where chunks are empty", [{ present, size: 1n, chunks: 2n }]],
    ["is refused where no number holds it", [{ present, size: 2n ** 63n, chunks: 2n ** 62n }]],
  ])("%s", async (_, blobs) => {
    await using client = await blobsOf({ batches: { stat: async () => ({ blobs }) } });
    await expect(client.statMany([DIGEST])).rejects.toMatchObject(dataLoss);
  });
});

describe("a frame of a server", () => {
  const contents = seededBytes("frame", 1000);
  const chunks = ChunkList.of([{ digest: blake3Digest(contents), size: contents.length }]);
  const frame = zstdCompressSync(contents, { pledgedSrcSize: contents.length });
  const other = zstdCompressSync(CONTENTS.subarray(0, 999), { pledgedSrcSize: 999 });

  it.each([
    ["that is missing", []],
    ["that is one too many", [frame, frame]],
    ["that states another length", [other]],
    ["that is none", [Buffer.from("no frame")]],
  ])("%s is refused", async (_, frames) => {
    const readFrames = async function* () {
      for (const frame of frames) yield { frame };
    };
    await using client = await blobsOf({ batches: { readFrames } });
    await expect(Array.fromAsync(client.frames(chunks))).rejects.toMatchObject(dataLoss);
  });

  it("of other contents of that length is refused where it is verified, also after a right one", async () => {
    let sent = frame;
    const readFrames = async function* () {
      yield { frame: sent };
    };
    await using client = await blobsOf({ batches: { readFrames } });
    const verified = () => Array.fromAsync(client.verifiedFrames!(chunks), (batch) => batch.length);
    expect(await verified()).toEqual([1]);
    sent = zstdCompressSync(Buffer.from(contents).fill(7), { pledgedSrcSize: contents.length });
    for (let i = 0; i < 2; i++) await expect(verified()).rejects.toMatchObject(dataLoss);
    sent = frame;
    expect(await verified()).toEqual([1]);
  });

  it("has a length, of which the server tells as many as it is asked for", async () => {
    let sizes: number[] = [];
    await using client = await blobsOf({ batches: { frameSizes: () => ({ sizes }) } });
    for (sizes of [[], [1, 2]]) {
      await expect(client.frameSizes!(chunks)).rejects.toMatchObject(dataLoss);
    }
    await using without = await blobsOf({ batches: { frameSizes: lacking } });
    await expect(without.frameSizes!(chunks)).rejects.toMatchObject({ code: "unimplemented" });
  });

  it("is made of the chunk where the server gives none", async () => {
    const backend = new MemoryBlobService();
    await putBlob(backend, contents);
    await using client = await blobsOf({ batches: { readFrames: lacking } }, backend);
    const frames = await Array.fromAsync(client.frames(chunks));
    expect(frames.map((frame) => zstdDecompressSync(frame))).toEqual([Buffer.from(contents)]);
  });
});

describe("a list that is put to a server without lists", () => {
  it("is stored as a blob", async () => {
    const backend = new MemoryBlobService();
    const parts = [CONTENTS.subarray(0, 100_000), CONTENTS.subarray(100_000, 300_000)];
    await backend.putMany(parts);
    const chunks = ChunkList.of(
      parts.map((part) => ({ digest: blake3Digest(part), size: part.length })),
    );
    const digest = blake3Digest(CONTENTS.subarray(0, 300_000));
    await using client = await blobsOf({ batches: { putList: lacking } }, backend);
    await client.putList(digest, chunks);
    expect(await backend.has(digest)).toBe(true);
  });
});

describe("directories of a server", () => {
  const leaf = encodeDirectory(Directory.from([]));
  const { size } = leaf.directory;
  const node = { type: "directory", digest: leaf.digest, size } as const;
  const root = encodeDirectory(Directory.from([{ name: pathComponent("leaf"), node }]));
  const messageOf = (directory: Directory) => ({
    directories: [...directory.directories()].map(({ name, node }) => ({
      name,
      digest: node.digest.bytes,
      size: node.size,
    })),
  });
  const sending = (...sent: readonly Directory[]) => ({
    async *get() {
      for (const directory of sent) yield messageOf(directory);
    },
  });

  it("are refused where one was asked for", async () => {
    await using client = await directoriesOf(sending(root.directory, leaf.directory));
    await expect(client.get(root.digest)).rejects.toMatchObject(dataLoss);
  });

  it.each([
    ["too few", []],
    ["too many", [leaf.directory, leaf.directory]],
    ["others", [root.directory]],
  ])("are refused in a batch if they are %s", async (_, sent) => {
    const get = async function* () {
      for (const directory of sent) yield { entries: [{ directory: messageOf(directory) }] };
    };
    const has = async () => ({ present: sent.map(() => true) });
    await using client = await clientOf(hostile({ trees: { get, has } }), openDirectoryService);
    await expect(client.getMany([leaf.digest])).rejects.toMatchObject(dataLoss);
    if (sent.length === 1) return;
    await expect(client.hasMany([leaf.digest])).rejects.toMatchObject(dataLoss);
  });

  it("are read one by one where it has no batches, and as a tree that is empty where it has none", async () => {
    const trees = { get: lacking, has: lacking };
    await using client = await clientOf(
      hostile({ trees, directories: sending() }),
      openDirectoryService,
    );
    expect(await client.getMany([leaf.digest])).toEqual([undefined]);
    expect(await client.hasMany([leaf.digest])).toEqual([false]);
    expect(await Array.fromAsync(client.getRecursive(leaf.digest))).toEqual([]);
  });

  it.each([
    ["others", sending(leaf.directory)],
    ["in another order", sending(leaf.directory, root.directory)],
    ["twice", sending(root.directory, leaf.directory, leaf.directory)],
    ["not all of them", sending(root.directory)],
  ])("are refused if they are %s", async (_, answers) => {
    await using client = await directoriesOf(answers);
    const reading = Array.fromAsync(client.getRecursive(root.digest));
    await expect(reading).rejects.toMatchObject(dataLoss);
  });
});

describe("path infos of a server", () => {
  const info = (name: string): PathInfo => ({
    storePath: StorePath.from(seededBytes(name, StorePath.HASH_PART_LENGTH), name),
    node: { type: "symlink", target: symlinkTarget("x") },
    references: [],
    narSize: 1n,
    narSha256: seededBytes("nar", 32),
    signatures: [],
  });
  const asked = info("asked");

  /** A client, and the address of its server. */
  async function storeOf(answers: Answers) {
    const stack = new AsyncDisposableStack();
    const pathInfoService = stack.use(await openPathInfoService("memory://"));
    const narCalculationService = new RenderingNarCalculationService({
      blobService: new MemoryBlobService(),
      directoryService: new MemoryDirectoryService(),
    });
    const services = storeServices({ pathInfoService, narCalculationService }).map(
      ({ service, implementation }) =>
        ({ service, implementation: { ...implementation, ...answers } }) as ServedService,
    );
    const { address } = stack.use(await serve(services, "streams"));
    const client = stack.use(await openPathInfoService(address));
    return { address, client, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  }

  const lost = { name: "StoreError", code: "data_loss" };

  it("are refused if they are those of another path", async () => {
    const another = pathInfoToProto(info("another"));
    await using store = await storeOf({ get: async () => another, put: async () => another });
    await expect(store.client.get(asked.storePath.hashPart)).rejects.toMatchObject(lost);
    await expect(store.client.put(asked)).rejects.toMatchObject(lost);
  });

  it("are refused if they are not valid", async () => {
    const list = async function* () {
      yield {};
    };
    await using store = await storeOf({ get: async () => ({}), put: async () => ({}), list });
    await expect(store.client.get(asked.storePath.hashPart)).rejects.toMatchObject(lost);
    await expect(store.client.put(asked)).rejects.toMatchObject(lost);
    await expect(Array.fromAsync(store.client.list())).rejects.toMatchObject(lost);
  });

  it("have no hash of a NAR that is none", async () => {
    await using store = await storeOf({
      calculateNAR: async () => ({ narSize: 1n, narSha256: new Uint8Array(31) }),
    });
    await using channel = openChannel(store.address);
    const calculated = new GrpcNarCalculationService(channel).calculateNar(asked.node);
    await expect(calculated).rejects.toMatchObject(lost);
  });
});

/** A server with the blob, and a client of it over a link that breaks. */
async function overCutLink(limits: readonly number[], blobs: Answers = {}, keys = "") {
  const backend = new MemoryBlobService();
  await putBlob(backend, CONTENTS);
  const stack = new AsyncDisposableStack();
  const server = stack.use(await serve(hostile({ blobs }, backend), "streams"));
  const link = stack.use(await cutLink(server.address, limits));
  const client = stack.use(await openBlobService(link.address + keys));
  return { client, link, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

describe("a download over a link that breaks", () => {
  const END = Number.POSITIVE_INFINITY;

  it("goes on where it broke off", async () => {
    await using broken = await overCutLink([6_000_000, 3_000_000, 100_000, END]);
    const found = await collectBytes((await broken.client.read(DIGEST))!);
    expect(Buffer.compare(found, CONTENTS)).toBe(0);
    expect(broken.link.bytes).toBeLessThan(30_000_000);
    const copy = new MemoryBlobService();
    await using again = await overCutLink([10_000_000, END]);
    expect(await copyBlob(again.client, copy, DIGEST)).toBe(true);
    expect(await copy.has(DIGEST)).toBe(true);
  });

  it("begins again where the server does not say how the blob is cut", async () => {
    await using broken = await overCutLink([6_000_000, 9_000_000, END], listing());
    const found = await collectBytes((await broken.client.read(DIGEST))!);
    expect(Buffer.compare(found, CONTENTS)).toBe(0);
  });

  it("gives a part of the blob", async () => {
    await using broken = await overCutLink([3_000_000, 2_000_000, END]);
    const range = { offset: 5_000_000, length: 10_000_000 };
    const found = await collectBytes((await broken.client.read(DIGEST, range))!);
    expect(Buffer.compare(found, CONTENTS.subarray(5_000_000, 15_000_000))).toBe(0);
  });

  it("fails when the link does not come back", async () => {
    for (const blobs of [{}, listing()]) {
      await using broken = await overCutLink([6_000_000, 0], blobs, "?retry_ms=300");
      const contents = (await broken.client.read(DIGEST))!;
      await expect(collectBytes(contents)).rejects.toMatchObject({ code: "unavailable" });
    }
  });

  it("can be cancelled while it waits for the link", async () => {
    await using broken = await overCutLink([6_000_000, 0]);
    const controller = new AbortController();
    const { signal } = controller;
    const contents = (await broken.client.read(DIGEST, { signal }))!;
    const reading = collectBytes(contents);
    reading.catch(() => undefined);
    await expect.poll(() => broken.link.bytes).toBeGreaterThan(5_900_000);
    controller.abort(new Error("enough"));
    await expect(reading).rejects.toBe(signal.reason);
  });

  it("does not go on with something else", async () => {
    const other = seededBytes("other", 6_000_000);
    const parts = [other.subarray(0, 3_000_000), other.subarray(3_000_000)];
    const backend = new MemoryBlobService();
    for (const part of [...parts, CONTENTS]) await putBlob(backend, part);
    const chunks = Array.from({ length: 7 }, (_, i) => parts[i % 2]!).map(
      (part) => [blake3Digest(part).bytes, BigInt(part.length)] as const,
    );
    await using server = await serve(hostile({ blobs: listing(...chunks) }, backend), "streams");
    await using link = await cutLink(server.address, [6_000_000, END]);
    await using client = await openBlobService(link.address);
    const contents = (await client.read(DIGEST))!;
    await expect(collectBytes(contents)).rejects.toMatchObject(dataLoss);
  });
});

describe("a server that sends blobs as they are stored", () => {
  const [one, other] = [Buffer.alloc(5_000, "one "), Buffer.alloc(5_000, "other ")];
  const wanted = [{ digest: blake3Digest(one), size: one.length }];
  const asked: boolean[] = [];
  const batches = (sent: object, honest: object): Answers => ({
    async read({ frames }: { frames: boolean }) {
      asked.push(frames);
      return { blobs: [{ present: true, ...(frames ? sent : honest) }] };
    },
  });

  it.each([
    ["a frame of something else", { frame: zstdCompressSync(other) }],
    ["what is no frame", { frame: Buffer.from("no frame") }],
    ["a frame that inflates to more", { frame: zstdCompressSync(Buffer.alloc(50_000_000)) }],
    ["contents of something else", { contents: other }],
    ["contents that are cut off", { contents: one.subarray(0, 100) }],
  ])("is asked for contents that it has verified in place of %s", async (_, sent) => {
    await using service = await blobsOf({ batches: batches(sent, { contents: one }) });
    asked.length = 0;
    const [found] = await service.readMany(wanted);
    expect(Buffer.from(found!).equals(one)).toBe(true);
    expect(asked).toEqual([true, false]);
  });

  it("is believed no more the second time", async () => {
    const sent = { frame: zstdCompressSync(other) };
    await using service = await blobsOf({ batches: batches(sent, { contents: other }) });
    await expect(service.readMany(wanted)).rejects.toMatchObject(dataLoss);
  });

  it("gives a right frame in one call", async () => {
    const frame = zstdCompressSync(one);
    await using service = await blobsOf({ batches: batches({ frame }, { contents: other }) });
    asked.length = 0;
    const [found] = await service.readMany(wanted);
    expect(Buffer.from(found!).equals(one)).toBe(true);
    expect(asked).toEqual([true]);
  });
});
