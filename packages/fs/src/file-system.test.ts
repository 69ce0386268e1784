import { zstdCompressSync } from "node:zlib";
import {
  type AbortOptions,
  type B3Digest,
  type BlobReader,
  blake3Digest,
  CastoreError,
  type ChunkMeta,
  type DirectoryEntry,
  MemoryBlobService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { ChunkList } from "@tvix/castore/chunk-list";
import { seededBytes } from "@tvix/conformance";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import {
  batchForgetBody,
  Kernel,
  memoryServices,
  putDirectory,
  readBody,
  register,
} from "../test/kernel.ts";
import { InodeTable } from "./inode-table.ts";
import { ERRNO, OPCODE } from "./protocol/constants.ts";

/** Stores contents, and returns the node of a file of them. */
async function fileOf(
  {
    blobService,
  }: { blobService: MemoryBlobService | ReturnType<typeof memoryServices>["blobService"] },
  contents: Uint8Array,
  executable = false,
): Promise<Node> {
  const digest = await putBlob(blobService, contents);
  return { type: "file", digest, size: BigInt(contents.length), executable };
}

const named = (name: string | Uint8Array, node: Node) => ({
  name: pathComponent(typeof name === "string" ? Buffer.from(name) : name),
  node,
});

test("files, folders and symlinks have the modes of a Nix store, and their contents", async () => {
  const services = memoryServices();
  const big = seededBytes("mount-1", 700_000);
  const inner = await putDirectory(services, [named("leaf", await fileOf(services, big))]);
  const folder = await putDirectory(services, [
    named("empty", await fileOf(services, Buffer.alloc(0))),
    named("inner", inner),
    named("link", { type: "symlink", target: symlinkTarget("inner/leaf") }),
    named("program", await fileOf(services, Buffer.from("#!"), true)),
  ]);
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services });
  const id = await kernel.walk(root);
  expect((await kernel.list(id)).map(({ name }) => name.toString())).toEqual([
    ".",
    "..",
    "empty",
    "inner",
    "link",
    "program",
  ]);
  expect((await kernel.lookup(id, "empty")).mode).toBe(0o100444);
  expect((await kernel.lookup(id, "program")).mode).toBe(0o100555);
  expect((await kernel.lookup(id, "inner")).mode).toBe(0o040555);
  const link = await kernel.lookup(id, "link");
  expect((await kernel.call(OPCODE.readlink, link.id)).body.toString()).toBe("inner/leaf");
  const leaf = await kernel.walk(root, "inner", "leaf");
  expect(await kernel.read(leaf, 0, 1_000_000)).toEqual(Buffer.from(big));
  expect(await kernel.read(leaf, 699_990, 4096)).toEqual(Buffer.from(big.subarray(699_990)));
  expect(await kernel.read(leaf, 700_000, 10)).toHaveLength(0);
  expect(await kernel.read(leaf, 2 ** 60, 10)).toHaveLength(0);
  expect(await kernel.read(await kernel.walk(root, "empty"), 0, 10)).toHaveLength(0);
});

test("a store path may be a file or a symlink, and is found by its whole name only", async () => {
  const services = memoryServices();
  const file = await register(services, "file", await fileOf(services, Buffer.from("x")));
  const link: Node = { type: "symlink", target: symlinkTarget("there") };
  const symlink = await register(services, "symlink", link);
  const kernel = new Kernel({ services });
  expect((await kernel.lookup(1, file)).mode).toBe(0o100444);
  expect((await kernel.lookup(1, symlink)).mode).toBe(0o120777);
  expect((await kernel.lookup(1, file.replace("file", "fil"))).id).toBe(0);
  const hashPart = file.slice(0, 33);
  for (const name of ["README", `${hashPart}.`, `${hashPart}..-x`, hashPart, `${hashPart}\xff`]) {
    expect((await kernel.lookup(1, Buffer.from(name, "latin1"))).id).toBe(0);
  }
  expect(kernel.errors).toEqual([]);
});

test("absent store paths are remembered for a limited time, absent names below for ever", async () => {
  const services = memoryServices();
  const root = await register(services, "tree", await putDirectory(services, []));
  const kernel = new Kernel({ services, absentTtl: 7 });
  const absent = await kernel.lookup(1, root.replace("tree", "late"));
  expect([absent.id, absent.validSeconds]).toEqual([0, 7]);
  expect((await kernel.lookup(await kernel.walk(root), "x")).validSeconds).toBeGreaterThan(1e9);
  expect((await kernel.lookup(1, root)).validSeconds).toBe(60);
});

test("equal files are one inode, unless only one of them may be executed; equal folders are not", async () => {
  const services = memoryServices();
  const same = Buffer.from("same");
  const inner = await putDirectory(services, []);
  const folder = await putDirectory(services, [
    named("a", await fileOf(services, same)),
    named("b", await fileOf(services, same)),
    named("c", await fileOf(services, same, true)),
    named("d", inner),
    named("e", inner),
  ]);
  const root = await register(services, "tree", folder);
  const ids = async () => {
    const kernel = new Kernel({ services });
    return await Promise.all([..."abcde"].map((name) => kernel.walk(root, name)));
  };
  const [a, b, c, d, e] = await ids();
  expect(b).toBe(a);
  expect(new Set([a, c, d, e]).size).toBe(4);
  expect(await ids()).toEqual([a, b, c, d, e]); // of another mount
});

test("inodes whose numbers collide are told apart, and forgotten one by one", async () => {
  const services = memoryServices();
  const contents = ["one", "two", "three"];
  const folder = await putDirectory(
    services,
    await Promise.all(
      contents.map(async (text) => named(text, await fileOf(services, Buffer.from(text)))),
    ),
  );
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services, inodes: new InodeTable(() => 2 ** 52 - 4) });
  const ids = await Promise.all(contents.map((name) => kernel.walk(root, name)));
  expect(new Set(ids).size).toBe(3);
  for (const [i, id] of ids.entries()) {
    expect((await kernel.read(id, 0, 100)).toString()).toBe(contents[i]);
  }
  const forget = Buffer.alloc(8);
  forget.writeUInt32LE(1, 0);
  kernel.start(OPCODE.forget, ids[0]!, forget);
  expect(await kernel.call(OPCODE.getattr, ids[0]!)).toMatchObject({ errno: ERRNO.ESTALE });
  expect((await kernel.read(ids[1]!, 0, 100)).toString()).toBe("two");
});

test("what the kernel has forgotten takes no memory, however often it was looked up", async () => {
  const services = memoryServices();
  const folder = await putDirectory(services, [
    named("file", await fileOf(services, Buffer.from("x"))),
  ]);
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services });
  const before = kernel.fileSystem.inodes;
  const ids = [await kernel.walk(root), await kernel.walk(root, "file")];
  await kernel.walk(root, "file");
  expect(kernel.fileSystem.inodes).toBe(before + 2);
  const forgets = ids.map((id) => [id, 3] as const);
  kernel.start(OPCODE.batchForget, 0, batchForgetBody(...forgets));
  expect(kernel.fileSystem.inodes).toBe(before);
});

test("a batch of forgets drops as many references of each inode as it says, and leaves others", async () => {
  const services = memoryServices();
  const names = ["once", "twice", "left"];
  const folder = await putDirectory(
    services,
    await Promise.all(
      names.map(async (name) => named(name, await fileOf(services, Buffer.from(name)))),
    ),
  );
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services });
  const parent = await kernel.walk(root);
  const find = async (name: string) => (await kernel.lookup(parent, name)).id;
  const [once, twice, left] = [await find("once"), await find("twice"), await find("left")];
  expect(await find("twice")).toBe(twice);
  const { answered } = kernel;
  kernel.start(OPCODE.batchForget, 0, batchForgetBody([once, 1], [12_345, 7], [twice, 1]));
  expect(kernel.answered).toBe(answered); // forgets have no answer
  const errnoOf = async (id: number) => (await kernel.call(OPCODE.getattr, id)).errno;
  expect([await errnoOf(once), await errnoOf(left)]).toEqual([ERRNO.ESTALE, 0]);
  expect((await kernel.read(twice, 0, 9)).toString()).toBe("twice");
  kernel.start(OPCODE.batchForget, 0, batchForgetBody([twice, 1]));
  expect([await errnoOf(twice), await errnoOf(left)]).toEqual([ERRNO.ESTALE, 0]);
});

test("names that are not UTF-8 are listed and found", async () => {
  const services = memoryServices();
  const name = Buffer.from([0xff, 0x20, 0xe9, 0x0a]);
  const folder = await putDirectory(services, [
    named(name, await fileOf(services, Buffer.from("odd"))),
  ]);
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services });
  expect((await kernel.list(await kernel.walk(root))).at(-1)!.name).toEqual(name);
  expect((await kernel.read(await kernel.walk(root, name), 0, 9)).toString()).toBe("odd");
});

test("a folder of 100,000 entries is listed whole, from any offset that was told", async () => {
  const services = memoryServices();
  const node = await fileOf(services, Buffer.from("x"));
  const count = 100_000;
  const entries = Array.from({ length: count }, (_, i) =>
    named(`entry-${String(i).padStart(6, "0")}`, node),
  );
  const root = await register(services, "tree", await putDirectory(services, entries));
  const kernel = new Kernel({ services });
  const id = await kernel.walk(root);
  const listed = await kernel.list(id, 0, 128 * 1024);
  expect(listed).toHaveLength(count + 2);
  expect(new Set(listed.map(({ name }) => name.toString())).size).toBe(count + 2);
  const middle = listed[77_777]!.next;
  expect(await kernel.list(id, middle, 128 * 1024)).toEqual(listed.slice(77_778));
  expect((await kernel.lookup(id, "entry-099999")).id).toBeGreaterThan(2);
});

test("the root lists all store paths by pages, or none", async () => {
  const services = memoryServices();
  const node = await fileOf(services, Buffer.from("x"));
  const names = Array.from({ length: 2100 }, (_, i) => `n${"x".repeat(i % 200)}-${i}`);
  const { StorePath } = await import("@tvix/store");
  for (const [i, name] of names.entries()) {
    const hashPart = new Uint8Array(20);
    new DataView(hashPart.buffer).setUint32(0, Math.imul(i, 2654435761) >>> 0);
    await services.pathInfoService.put({
      storePath: StorePath.from(hashPart, name),
      node,
      references: [],
      signatures: [],
      narSize: 1n,
      narSha256: new Uint8Array(32),
    });
  }
  const kernel = new Kernel({ services });
  const listed = await kernel.list(1);
  expect(listed).toHaveLength(names.length + 2);
  const found = new Set(listed.slice(2).map(({ name }) => name.toString().slice(33)));
  expect(found).toEqual(new Set(names));
  await expect(new Kernel({ services, listRoot: false }).list(1)).rejects.toThrow(
    `errno ${ERRNO.EPERM}`,
  );
});

/** Serves one blob of many equal chunks, without holding it. */
class LongBlob extends MemoryBlobService {
  readonly digest: B3Digest;
  readonly chunks: ChunkList;

  constructor(digest: B3Digest, chunk: ChunkMeta, count: number) {
    super();
    this.digest = digest;
    this.chunks = ChunkList.of(Array.from({ length: count }, () => chunk));
  }

  override async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    if (!digest.equals(this.digest)) return await super.open(digest, options);
    return {
      digest,
      size: this.chunks.size,
      chunks: this.chunks,
      async read(offset, length) {
        const contents = new Uint8Array(length);
        new DataView(contents.buffer).setBigUint64(0, BigInt(offset));
        return contents;
      },
      [Symbol.asyncDispose]: async () => undefined,
    };
  }
}

test("a file of more than 4 GiB is read at any offset", async () => {
  const digests = memoryServices();
  const digest = await putBlob(digests.blobService, Buffer.from("long"));
  const chunkDigest = await putBlob(digests.blobService, Buffer.from("chunk"));
  const chunkSize = 8 * 1024 * 1024;
  const blobService = new LongBlob(digest, { digest: chunkDigest, size: chunkSize }, 600);
  const services = { ...memoryServices(), blobService };
  const size = 600n * BigInt(chunkSize);
  const root = await register(services, "long", { type: "file", digest, size, executable: false });
  const kernel = new Kernel({ services });
  expect((await kernel.lookup(1, root)).size).toBe(Number(size));
  const last = 599 * chunkSize;
  const read = await kernel.read(await kernel.walk(root), last, 8);
  expect(read.readBigUInt64BE(0)).toBe(BigInt(last));
});

test("extended attributes show digests under the names of tvix and snix, if they are wanted", async () => {
  const services = memoryServices();
  const node = await fileOf(services, Buffer.from("x"));
  const root = await register(services, "file", node);
  const kernel = new Kernel({ services });
  const id = await kernel.walk(root);
  const name = "user.tvix.castore.blob.digest";
  const ask = (size: number, of = name) => {
    const body = Buffer.concat([Buffer.alloc(8), Buffer.from(`${of}\0`)]);
    body.writeUInt32LE(size, 0);
    return body;
  };
  const digest = node.type === "file" ? node.digest.toString() : "";
  expect((await kernel.call(OPCODE.getxattr, id, ask(100))).body.toString()).toBe(digest);
  expect((await kernel.call(OPCODE.getxattr, id, ask(0))).body.readUInt32LE(0)).toBe(digest.length);
  expect((await kernel.call(OPCODE.getxattr, id, ask(3))).errno).toBe(ERRNO.ERANGE);
  expect((await kernel.call(OPCODE.getxattr, id, ask(9, "user.x"))).errno).toBe(ERRNO.ENODATA);
  const all = (await kernel.call(OPCODE.listxattr, id, ask(1000).subarray(0, 8))).body.toString();
  expect(all).toBe(`${name}\0user.snix.castore.blob.digest\0`);
  const silent = new Kernel({ services, showXattr: false });
  const other = await silent.walk(root);
  expect((await silent.call(OPCODE.getxattr, other, ask(100))).errno).toBe(ERRNO.ENOSYS);
});

/** Has its calls wait until they are released, and counts them. */
class HeldBlobs extends MemoryBlobService {
  readonly signals: AbortSignal[] = [];
  opened = 0;

  override async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    this.opened += 1;
    await this.#never(options);
    return await super.open(digest);
  }

  override async readMany(
    chunks: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    await this.#never(options);
    return await super.readMany(chunks);
  }

  async #never({ signal }: AbortOptions = {}): Promise<void> {
    if (signal !== undefined) this.signals.push(signal);
    await new Promise((_, reject) =>
      signal?.addEventListener("abort", () => reject(signal.reason)),
    );
  }
}

/** Sizes of a file that is read chunk by chunk, and of one that is read whole. */
const SIZES = [300_000, 30_000];

test.each(SIZES)("a fetch of %i bytes ends with the last that waits for it", async (size) => {
  const blobService = new HeldBlobs();
  const services = { ...memoryServices(), blobService };
  const root = await register(
    services,
    "big",
    await fileOf(services, seededBytes("mount-2", size)),
  );
  const kernel = new Kernel({ services });
  const id = await kernel.walk(root);
  const reads = [0, 4096].map((offset) =>
    kernel.start(OPCODE.read, id, readBody({ offset, size: 4096 })),
  );
  const interrupt = (unique: bigint) => {
    const body = Buffer.alloc(8);
    body.writeBigUInt64LE(unique, 0);
    kernel.start(OPCODE.interrupt, 0, body);
  };
  await expect.poll(() => blobService.signals).toHaveLength(1); // single flight
  interrupt(reads[0]!.unique);
  expect((await reads[0]!.answer).errno).toBe(ERRNO.EINTR);
  expect(blobService.signals[0]!.aborted).toBe(false);
  interrupt(reads[1]!.unique);
  expect((await reads[1]!.answer).errno).toBe(ERRNO.EINTR);
  await expect.poll(() => blobService.signals[0]!.aborted).toBe(true);
  interrupt(12_345n); // of a request that is long answered
  expect(kernel.waiting).toBe(0);
});

test.each(SIZES)("a store that does not answer costs ETIMEDOUT of %i bytes", async (size) => {
  const services = { ...memoryServices(), blobService: new HeldBlobs() };
  const root = await register(
    services,
    "big",
    await fileOf(services, seededBytes("mount-6", size)),
  );
  const kernel = new Kernel({ services, timeoutMs: 100 });
  const id = await kernel.walk(root);
  await expect(kernel.read(id, 0, 5)).rejects.toThrow(`errno ${ERRNO.ETIMEDOUT}`);
  expect(kernel.errors).toEqual([
    "Cannot read from the store: expected an answer within 100 ms, found none",
  ]);
  expect(services.blobService.signals.every(({ aborted }) => aborted)).toBe(true);
});

test("a blob that hangs delays no other that is fetched by the same call", async () => {
  class OneHangs extends HeldBlobs {
    hanging: B3Digest | undefined;

    override async open(...args: Parameters<HeldBlobs["open"]>) {
      const hangs = this.hanging?.equals(args[0]);
      return await (hangs
        ? super.open(...args)
        : MemoryBlobService.prototype.open.apply(this, args));
    }

    override async readMany(...args: Parameters<HeldBlobs["readMany"]>) {
      const hangs = args[0].some(({ digest }) => this.hanging?.equals(digest));
      const { readMany } = MemoryBlobService.prototype;
      return await (hangs ? super.readMany(...args) : readMany.apply(this, args));
    }
  }
  const services = { ...memoryServices(), blobService: new OneHangs() };
  const names = Array.from({ length: 8 }, (_, i) => `file-${i}`);
  const nodes = await Promise.all(names.map((name) => fileOf(services, Buffer.from(name))));
  const folder = await putDirectory(
    services,
    nodes.map((node, i) => named(names[i]!, node)),
  );
  const root = await register(services, "tree", folder);
  const hung = nodes[5] as Node & { type: "file" };
  services.blobService.hanging = hung.digest;
  const kernel = new Kernel({ services });
  const ids = await Promise.all(names.map((name) => kernel.walk(root, name)));
  const reads = ids.map((id) => kernel.start(OPCODE.read, id, readBody({ offset: 0, size: 100 })));
  const others = reads.filter((_, i) => i !== 5);
  const answers = await Promise.all(others.map(({ answer }) => answer));
  expect(answers.map(({ body }) => body.toString())).toEqual(names.filter((_, i) => i !== 5));
  expect(kernel.waiting).toBe(1);
  const body = Buffer.alloc(8);
  body.writeBigUInt64LE(reads[5]!.unique, 0);
  kernel.start(OPCODE.interrupt, 0, body);
  expect((await reads[5]!.answer).errno).toBe(ERRNO.EINTR);
  const { signals } = services.blobService;
  await expect.poll(() => signals.every(({ aborted }) => aborted)).toBe(true);
  expect(kernel.errors).toEqual([]);
});

test("a blob that is missing, damaged or of another length fails with EIO and a reason, and no other file", async () => {
  const services = memoryServices();
  const absent = await fileOf(memoryServices(), seededBytes("mount-3", 300_000));
  const wrong = await fileOf(services, Buffer.from("short"));
  const folder = await putDirectory(services, [
    named("absent", absent),
    named("good", await fileOf(services, Buffer.from("good"))),
    named("wrong", { ...wrong, size: 6n } as Node),
  ]);
  const root = await register(services, "tree", folder);
  const kernel = new Kernel({ services });
  for (const name of ["absent", "wrong"]) {
    const id = await kernel.walk(root, name);
    await expect(kernel.read(id, 0, 10)).rejects.toThrow(`errno ${ERRNO.EIO}`);
  }
  expect(kernel.errors).toEqual([
    expect.stringMatching(/^Cannot read blob b3:.*found none that is whole$/),
    expect.stringMatching(/^Cannot read blob b3:.*expected 6 bytes.*found 5$/),
  ]);
  expect((await kernel.read(await kernel.walk(root, "good"), 0, 10)).toString()).toBe("good");
});

/** Cannot be reached for its first calls. */
class LateBlobs extends MemoryBlobService {
  failures: number;

  constructor(failures: number) {
    super();
    this.failures = failures;
  }

  override async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    if (this.failures-- > 0) throw new CastoreError("unavailable", "Cannot connect");
    return await super.open(digest, options);
  }
}

test("a store that comes back costs a wait; one that does not, ETIMEDOUT", async () => {
  const contents = seededBytes("mount-4", 300_000);
  for (const [failures, timeoutMs] of [
    [2, 0],
    [1e9, 300],
  ] as const) {
    const services = { ...memoryServices(), blobService: new LateBlobs(failures) };
    const root = await register(services, "big", await fileOf(services, contents));
    const kernel = new Kernel({ services, timeoutMs });
    const id = await kernel.walk(root);
    if (timeoutMs === 0) {
      expect(await kernel.read(id, 0, 5)).toEqual(Buffer.from(contents.subarray(0, 5)));
      expect(kernel.outages).toEqual([true, false]);
    } else {
      await expect(kernel.read(id, 0, 5)).rejects.toThrow(`errno ${ERRNO.ETIMEDOUT}`);
      expect(kernel.errors).toEqual(["Cannot connect"]);
    }
  }
});

test("a tree that is walked is fetched in few calls, through all of its folders", async () => {
  const services = memoryServices();
  const [FOLDERS, FILES] = [30, 10];
  const folders: DirectoryEntry[] = [];
  for (let i = 0; i < FOLDERS; i++) {
    const files: DirectoryEntry[] = [];
    for (let j = 0; j < FILES; j++) {
      const contents = Buffer.from(`contents of ${i} ${j}`);
      const digest = await putBlob(services.blobService, contents);
      const node = {
        type: "file",
        digest,
        size: BigInt(contents.length),
        executable: false,
      } as const;
      files.push({ name: pathComponent(`file-${j}`), node });
    }
    const node = await putDirectory(services, files);
    folders.push({ name: pathComponent(`folder-${String(i).padStart(2, "0")}`), node });
  }
  const baseName = await register(services, "tree", await putDirectory(services, folders));
  const calls = [
    vi.spyOn(services.blobService, "readMany"),
    vi.spyOn(services.blobService, "open"),
    vi.spyOn(services.directoryService, "get"),
    vi.spyOn(services.directoryService, "getMany"),
  ];
  const kernel = new Kernel({ services });
  const root = await kernel.walk(baseName);
  for (const { name: folder } of await kernel.list(root)) {
    if (folder[0] === 0x2e) continue;
    const { id } = await kernel.lookup(root, folder);
    for (const { name } of await kernel.list(id)) {
      if (name[0] === 0x2e) continue;
      const file = await kernel.lookup(id, name);
      const [i, j] = [Number(folder.toString().slice(7)), name.toString().slice(5)];
      expect((await kernel.read(file.id, 0, 100)).toString()).toBe(`contents of ${i} ${j}`);
    }
  }
  const made = calls.reduce((sum, { mock }) => sum + mock.calls.length, 0);
  expect(made).toBeLessThan(30); // for 31 folders and 300 files
});

test("files that are read at random, and folders that are large, are not fetched ahead", async () => {
  const services = memoryServices();
  const files: DirectoryEntry[] = [];
  for (let i = 0; i < 9000; i++) {
    const contents = Buffer.from(`${i % 100}`);
    const digest = await putBlob(services.blobService, contents);
    const node = {
      type: "file",
      digest,
      size: BigInt(contents.length),
      executable: false,
    } as const;
    files.push({ name: pathComponent(`${i}`), node });
  }
  const large = await putDirectory(services, files);
  const root = await putDirectory(services, [{ name: pathComponent("large"), node: large }]);
  const baseName = await register(services, "tree", root);
  const readMany = vi.spyOn(services.blobService, "readMany");
  const [get, getMany] = [
    vi.spyOn(services.directoryService, "get"),
    vi.spyOn(services.directoryService, "getMany"),
  ];
  const kernel = new Kernel({ services });
  await kernel.list(await kernel.walk(baseName));
  expect(get.mock.calls.length + getMany.mock.calls.length).toBe(1);
  for (const name of ["5000", "700", "8000"]) {
    const { id } = await kernel.lookup(await kernel.walk(baseName, "large"), name);
    await kernel.read(id, 0, 10);
  }
  expect(readMany.mock.calls.flatMap(([blobs]) => blobs)).toHaveLength(1); // all have the same contents
});

test("contents at hand are read at any offset without the store, and the others from it", async () => {
  const services = memoryServices();
  const big = seededBytes("mount-at-hand", 3_000_000);
  const small = seededBytes("mount-at-hand-small", 50_000);
  const folder = await putDirectory(services, [
    named("big", await fileOf(services, big)),
    named("small", await fileOf(services, small)),
  ]);
  const root = await register(services, "tree", folder);
  await using reader = await services.blobService.open(blake3Digest(big));
  const parts = new Map<string, Uint8Array>();
  const add = (part: Uint8Array) =>
    parts.set(Buffer.from(blake3Digest(part).bytes).toString("latin1"), part);
  for (let i = 0, at = 0; i < reader!.chunks.length; at += reader!.chunks.sizeAt(i++)) {
    add(big.subarray(at, at + reader!.chunks.sizeAt(i)));
  }
  add(small);
  let isThere = true;
  const atHand = {
    read(digest: string, target: Uint8Array) {
      const part = isThere ? parts.get(digest) : undefined;
      if (part?.length !== target.length) return false;
      target.set(part);
      return true;
    },
  };
  const kernel = new Kernel({ services, atHand, cacheBytes: 2 * 1024 * 1024 });
  const readMany = vi.spyOn(services.blobService, "readMany");
  const ids = [await kernel.walk(root, "big"), await kernel.walk(root, "small")] as const;
  const length = fc.oneof(fc.nat(20_000), fc.nat(1024 * 1024));
  const where = fc.record({ which: fc.constantFrom(0, 1), at: fc.nat(1000), length });
  const readAll = async () => {
    for (const { which, at, length } of fc.sample(where, { numRuns: 300, seed: 19 })) {
      const contents = which === 0 ? big : small;
      const offset = Math.floor((contents.length * at) / 1000);
      const found = await kernel.read(ids[which], offset, length);
      expect(found.equals(contents.subarray(offset, offset + length))).toBe(true);
    }
  };
  await readAll();
  expect(readMany).not.toHaveBeenCalled();
  isThere = false;
  await readAll();
  expect(readMany).toHaveBeenCalled();
});

test("what comes compressed is held so: more of a file than the memory for contents is long", async () => {
  const services = memoryServices();
  const big = Buffer.alloc(6_000_000, seededBytes("held", 3000));
  const root = await register(services, "big", await fileOf(services, big));
  const { blobService } = services;
  const readManyStored = vi.fn(async (chunks: readonly ChunkMeta[]) => {
    const found = await blobService.readMany(chunks);
    return found.map((contents) => contents && { frame: zstdCompressSync(contents) });
  });
  Object.assign(blobService, { readManyStored });
  const kernel = new Kernel({ services, cacheBytes: 1024 * 1024 });
  const id = await kernel.walk(root);
  const readBackwards = async () => {
    for (let at = big.length - 5000; at > 0; at -= 50_000) {
      const expected = big.subarray(at, at + 4096);
      expect((await kernel.read(id, at, 4096)).equals(expected)).toBe(true);
    }
  };
  await readBackwards();
  readManyStored.mockClear();
  await readBackwards();
  expect(readManyStored).not.toHaveBeenCalled();
});

test.each(["verified", "stored", "frame"])(
  "reads of any part are right where little is held, of contents that come %s",
  async (form) => {
    const services = memoryServices();
    const big = Buffer.from(seededBytes("little", 3_000_000));
    const root = await register(services, "big", await fileOf(services, big));
    const { blobService } = services;
    if (form !== "verified") {
      const readManyStored = async (chunks: readonly ChunkMeta[]) => {
        const found = await blobService.readMany(chunks);
        return found.map((contents) => {
          if (contents === undefined) return undefined;
          return form === "frame" ? { frame: zstdCompressSync(contents) } : { contents };
        });
      };
      Object.assign(blobService, { readManyStored });
    }
    const kernel = new Kernel({ services, cacheBytes: 1024 * 1024 });
    const id = await kernel.walk(root);
    const where = fc.record({ at: fc.nat(big.length - 1), length: fc.nat(400_000) });
    for (const { at, length } of fc.sample(where, { numRuns: 300, seed: 19 })) {
      const found = await kernel.read(id, at, length);
      expect(found.equals(big.subarray(at, at + length)), `${length} bytes at ${at}`).toBe(true);
    }
  },
);

test("what comes as it is stored is verified, and fetched as contents where it is wrong", async () => {
  const services = memoryServices();
  const big = Buffer.alloc(2_000_000, seededBytes("stored", 3000));
  const small = Buffer.alloc(20_000, "compressible ");
  const folder = await putDirectory(services, [
    named("big", await fileOf(services, big)),
    named("small", await fileOf(services, small)),
  ]);
  const root = await register(services, "tree", folder);
  const { blobService } = services;
  let calls = 0;
  let damage = (stored: Buffer): Buffer => stored;
  const readManyStored = async (chunks: readonly ChunkMeta[]) => {
    const found = await blobService.readMany(chunks);
    return found.map((contents) => {
      calls += 1;
      if (contents === undefined) return undefined;
      if (calls % 2 === 0) return { contents: damage(Buffer.from(contents)) };
      return { frame: damage(zstdCompressSync(contents)) };
    });
  };
  Object.assign(blobService, { readManyStored });
  const read = async (kernel: Kernel) => [
    await kernel.read(await kernel.walk(root, "big"), 0, big.length),
    await kernel.read(await kernel.walk(root, "small"), 0, small.length),
  ];
  // Most are longer than half of what is held.
  for (const cacheBytes of [200_000, 16 * 1024 * 1024]) {
    expect(await read(new Kernel({ services, cacheBytes }))).toEqual([big, small]);
  }
  const open = vi.spyOn(blobService, "open");
  const shorten = (stored: Buffer) => stored.subarray(0, stored.length - 1);
  const flip = (stored: Buffer) =>
    Buffer.concat([stored.subarray(0, -1), Buffer.of(stored.at(-1)! ^ 1)]);
  for (const wrong of [shorten, flip, () => Buffer.alloc(0)]) {
    damage = wrong;
    open.mockClear();
    const kernel = new Kernel({ services });
    expect(await read(kernel)).toEqual([big, small]);
    expect(open).toHaveBeenCalledTimes(2); // by the readers of both
    expect(kernel.errors).toEqual([]);
  }
});
