import {
  type B3Digest,
  blake3Digest,
  CastoreError,
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { renderNar } from "./renderer.ts";
import { RenderingNarCalculationService } from "./rendering-nar-calculation-service.ts";

let sources: { blobService: MemoryBlobService; directoryService: MemoryDirectoryService };
beforeEach(() => {
  sources = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
});

async function file(contents: string | Uint8Array, executable = false): Promise<Node> {
  const bytes = Buffer.from(contents);
  const digest = await putBlob(sources.blobService, bytes);
  return { type: "file", digest, size: BigInt(bytes.length), executable };
}

/** Makes directories of nested objects, stores them, and gives the root. */
interface Tree {
  readonly [name: string]: Node | Tree;
}
async function directory(tree: Tree): Promise<Node> {
  const putter = sources.directoryService.openPutter();
  async function put(tree: Tree): Promise<Node> {
    const entries = [];
    for (const [name, value] of Object.entries(tree)) {
      const node = "type" in value ? (value as Node) : await put(value as Tree);
      entries.push({ name: pathComponent(name), node });
    }
    const directory = Directory.from(entries);
    await putter.put(directory);
    const { digest } = encodeDirectory(directory);
    return { type: "directory", digest, size: directory.size };
  }
  const root = await put(tree);
  await putter.close();
  return root;
}

async function render(root: Node): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of renderNar(root, sources)) parts.push(Buffer.from(part)); // only lent
  return Buffer.concat(parts);
}

describe("renderNar", () => {
  it("writes the bytes that Nix writes", async () => {
    // `nix-store --dump` of a folder with a file "a" that holds "x".
    const expected =
      "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAJAAAAAAAAAGRpcmVj" +
      "dG9yeQAAAAAAAAAFAAAAAAAAAGVudHJ5AAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAbmFtZQAAAAABAAAAAAAAAGEA" +
      "AAAAAAAABAAAAAAAAABub2RlAAAAAAEAAAAAAAAAKAAAAAAAAAAEAAAAAAAAAHR5cGUAAAAABwAAAAAAAAByZWd1bGFy" +
      "AAgAAAAAAAAAY29udGVudHMBAAAAAAAAAHgAAAAAAAAAAQAAAAAAAAApAAAAAAAAAAEAAAAAAAAAKQAAAAAAAAABAAAA" +
      "AAAAACkAAAAAAAAA";
    const root = await directory({ a: await file("x") });
    expect((await render(root)).toString("base64")).toBe(expected);
  });

  it("is a multiple of 8 bytes long, whatever the lengths in it", async () => {
    for (let length = 0; length < 20; length++) {
      const root = await directory({
        ["n".repeat(length + 1)]: await file("c".repeat(length), length % 2 === 0),
        link: { type: "symlink", target: symlinkTarget("t".repeat(length + 1)) },
      });
      expect((await render(root)).length % 8).toBe(0);
    }
  });

  it("renders files of any size, some of them small enough to be read ahead", async () => {
    const sizes = [0, 1, 16_383, 16_384, 65_536, 262_144, 262_145, 3_000_000];
    const files = await Promise.all(sizes.map((size) => file(Buffer.alloc(size, `${size} `))));
    const root = await directory(Object.fromEntries(files.map((file, i) => [`${i}`, file])));
    const nar = await render(root);
    for (const size of sizes) expect(nar.includes(Buffer.alloc(size, `${size} `))).toBe(true);
    const calculated = await new RenderingNarCalculationService(sources).calculateNar(root);
    expect(calculated.narSize).toBe(BigInt(nar.length));
  });

  it("reads no further ahead than it is allowed to", async () => {
    const files = await Promise.all(
      Array.from({ length: 120 }, (_, i) => file(Buffer.alloc(60_000, `${i} `))),
    );
    const root = await directory(Object.fromEntries(files.map((file, i) => [`${i}`, file])));
    using readMany = vi.spyOn(sources.blobService, "readMany");
    const callsBeforeTheFirstPiece = async (readAhead?: () => number) => {
      readMany.mockClear();
      for await (const _ of renderNar(root, sources, readAhead && { readAhead })) break;
      return readMany.mock.calls.length;
    };
    expect(await callsBeforeTheFirstPiece(() => 0)).toBe(1);
    expect(await callsBeforeTheFirstPiece(() => 2_000_000)).toBe(7);
    expect(await callsBeforeTheFirstPiece()).toBe(6); // longer ones
  });

  it("renders a tree 2,000 levels deep", async () => {
    let root = Directory.from([]);
    const putter = sources.directoryService.openPutter();
    await putter.put(root);
    for (let i = 0; i < 2000; i++) {
      const { digest } = encodeDirectory(root);
      const node = { type: "directory", digest, size: root.size } as const;
      root = Directory.from([{ name: pathComponent("d"), node }]);
      await putter.put(root);
    }
    const digest = await putter.close();
    const nar = await render({ type: "directory", digest, size: root.size });
    const inner = await render({
      type: "directory",
      digest: encodeDirectory(Directory.from([])).digest,
      size: 0n,
    });
    // "(", "type", "directory", "entry", "(", "name", "d", "node" and two ")", each padded
    const level = 16 + 16 + 24 + 16 + 16 + 16 + 16 + 16 + 16 + 16;
    expect(nar.length).toBe(inner.length + 2000 * level);
  });

  it.each(["blob", "directory"])("tells which %s is missing", async (what) => {
    const digest = blake3Digest(Buffer.from("missing"));
    const root: Node =
      what === "blob"
        ? await directory({
            here: await file("x"),
            missing: { type: "file", digest, size: 7n, executable: false },
          })
        : { type: "directory", digest, size: 0n };
    await expect(render(root)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(`${what} ${digest}`),
    });
  });

  it.each([
    ["shorter", 1n, "expected 9"],
    ["longer", -1n, "expected 7"],
  ])("tells that a blob is %s than its node states", async (_, more, reason) => {
    for (const contents of ["contents", Buffer.alloc(600_000)]) {
      const node = await file(contents);
      if (node.type !== "file") throw new Error("expected a file");
      await expect(render({ ...node, size: node.size + more })).rejects.toMatchObject({
        code: "data_loss",
        message: expect.stringContaining(contents === "contents" ? reason : "expected"),
      });
    }
  });

  it.each([7n, 1_000_000n])("tells where a blob of %d bytes is missing", async (size) => {
    const digest = blake3Digest(Buffer.from("missing"));
    const missing: Node = { type: "file", digest, size, executable: false };
    const root = await directory({ a: await file("a"), lib: { 'x"': missing } });
    await expect(render(root)).rejects.toMatchObject({
      code: "not_found",
      message: `Cannot render NAR: blob ${digest} of "lib"/"x\\x22" is missing`,
    });
  });

  it("fails as the directory service does where a directory below the root is missing", async () => {
    const root = await directory({ lib: { empty: {} } });
    const reason = new CastoreError("data_loss", "a directory is missing");
    const directoryService = Object.assign(new MemoryDirectoryService(), {
      async *getRecursive(digest: B3Digest) {
        for await (const directory of sources.directoryService.getRecursive(digest)) {
          if (directory.entries.length === 0) throw reason;
          yield directory;
        }
      },
    });
    const nar = renderNar(root, { ...sources, directoryService });
    await expect(Array.fromAsync(nar)).rejects.toBe(reason);
  });

  it("takes no directories that do not belong together", async () => {
    const root = await directory({ lib: { empty: {} } });
    const directoryService = Object.assign(new MemoryDirectoryService(), {
      async *getRecursive(digest: B3Digest) {
        for await (const directory of sources.directoryService.getRecursive(digest)) {
          if (directory.entries.length > 0) yield directory;
        }
      },
    });
    const { digest } = encodeDirectory(Directory.from([]));
    const nar = renderNar(root, { ...sources, directoryService });
    await expect(Array.fromAsync(nar)).rejects.toMatchObject({
      code: "not_found",
      message: `Cannot render NAR: directory ${digest} of "lib"/"empty" is missing`,
    });
  });

  it("rejects with the reason when it was cancelled before, even if nothing has to be read", async () => {
    const reason = new Error("enough");
    const root: Node = { type: "symlink", target: symlinkTarget("target") };
    const nar = renderNar(root, sources, { signal: AbortSignal.abort(reason) });
    await expect(nar.next()).rejects.toBe(reason);
  });

  it("leaves nothing being read when nobody reads on", async () => {
    const files = await Promise.all(
      Array.from({ length: 40 }, (_, i) => file(Buffer.alloc(20_000, `${i} `))),
    );
    const root = await directory(Object.fromEntries(files.map((file, i) => [`${i}`, file])));
    let reading = 0;
    let most = 0;
    const blobService = Object.assign(new MemoryBlobService(), {
      async read(digest: B3Digest) {
        reading += 1;
        most = Math.max(most, reading);
        await new Promise(setImmediate);
        await new Promise(setImmediate);
        reading -= 1;
        return await sources.blobService.read(digest);
      },
    });
    for await (const part of renderNar(root, { ...sources, blobService })) {
      expect(part.length).toBeGreaterThan(0);
      break;
    }
    expect(most).toBeGreaterThan(1);
    expect(reading).toBe(0);
  });

  it("ends when it is cancelled, and when nobody reads on", async () => {
    const root = await directory({ a: await file(Buffer.alloc(2_000_000)), b: await file("b") });
    const reason = new Error("enough");
    const cancelled = async () => {
      const controller = new AbortController();
      for await (const _ of renderNar(root, sources, { signal: controller.signal })) {
        controller.abort(reason);
      }
    };
    await expect(cancelled()).rejects.toBe(reason);
    for await (const part of renderNar(root, sources)) {
      expect(part.length).toBeGreaterThan(0);
      break;
    }
  });
});
