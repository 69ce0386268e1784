import {
  blake3Digest,
  CastoreError,
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import { beforeEach, describe, expect, it } from "vitest";
import { measureNar } from "./measure.ts";
import { renderNar } from "./renderer.ts";

let sources: { blobService: MemoryBlobService; directoryService: MemoryDirectoryService };
beforeEach(() => {
  sources = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
});

async function file(contents: string): Promise<Node> {
  const digest = await putBlob(sources.blobService, Buffer.from(contents));
  return { type: "file", digest, size: BigInt(contents.length), executable: false };
}

/** Stores a folder of nodes that is in another one. */
async function nested(nodes: readonly Node[]): Promise<Node> {
  const putter = sources.directoryService.openPutter();
  const inner = Directory.from(nodes.map((node, i) => ({ name: pathComponent(`${i}`), node })));
  await putter.put(inner);
  const { digest } = encodeDirectory(inner);
  const node = { type: "directory", digest, size: inner.size } as const;
  const outer = Directory.from([{ name: pathComponent("inner"), node }]);
  await putter.put(outer);
  await putter.close();
  return { type: "directory", digest: encodeDirectory(outer).digest, size: outer.size };
}

describe("measureNar", () => {
  it("returns the length of what renderNar writes", async () => {
    for (const root of [await file("alone"), await nested([await file("a"), await file("")])]) {
      let length = 0;
      for await (const data of renderNar(root, sources)) length += data.length;
      expect(await measureNar(root, sources)).toBe(length);
    }
  });

  it("finds a blob that is missing among thousands that are there", async () => {
    const missing: Node = {
      type: "file",
      digest: blake3Digest(Buffer.from("missing")),
      size: 7n,
      executable: false,
    };
    const there = await file("there");
    const nodes = Array.from({ length: 3000 }, (_, i) => (i === 2500 ? missing : there));
    const refusal = { code: "not_found", message: expect.stringContaining(`${missing.digest}`) };
    await expect(measureNar(await nested(nodes), sources)).rejects.toMatchObject(refusal);
    await expect(measureNar(missing, sources)).rejects.toMatchObject(refusal);
  });

  it("finds a blob of another length than its node states", async () => {
    const root = await nested([{ ...(await file("six by")), size: 7n } as Node]);
    await expect(measureNar(root, sources)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining("has 6 bytes, expected 7"),
    });
  });

  it("finds missing directories, at the root and below", async () => {
    const root = (await nested([await file("a")])) as Extract<Node, { type: "directory" }>;
    const [whole] = [sources.directoryService];
    sources.directoryService = new MemoryDirectoryService();
    await expect(measureNar(root, sources)).rejects.toMatchObject({ code: "not_found" });
    const lacking = {
      ...sources,
      directoryService: Object.assign(Object.create(whole), {
        async *getRecursive() {
          yield (await whole.get(root.digest))!;
          throw new CastoreError("data_loss", "gone");
        },
      }),
    };
    await expect(measureNar(root, lacking)).rejects.toMatchObject({ code: "data_loss" });
  });

  it("can be cancelled", async () => {
    const root = await nested([await file("a")]);
    const reason = new Error("enough");
    const cancelled = measureNar(root, sources, { signal: AbortSignal.abort(reason) });
    await expect(cancelled).rejects.toBe(reason);
  });
});
