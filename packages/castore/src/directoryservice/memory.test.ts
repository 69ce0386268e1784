import { describe, expect, it } from "vitest";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { Directory } from "../model/directory.ts";
import { pathComponent } from "../model/path.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { MemoryDirectoryService } from "./memory.ts";

function parentOf(directory: Directory): Directory {
  const { digest } = encodeDirectory(directory);
  const node = { type: "directory", digest, size: directory.size } as const;
  return Directory.from([{ name: pathComponent("below"), node }]);
}

const LEAF = Directory.from([]);
const MIDDLE = parentOf(LEAF);
const ROOT = parentOf(MIDDLE);
const ended = { code: "invalid_argument", message: expect.stringContaining("ended") };

async function stored(service: MemoryDirectoryService): Promise<number> {
  const found = await Promise.all(
    [LEAF, MIDDLE, ROOT].map((directory) => service.get(encodeDirectory(directory).digest)),
  );
  return found.filter((directory) => directory !== undefined).length;
}

describe("MemoryDirectoryService", () => {
  it("forgets everything when it is disposed of", async () => {
    const service = new MemoryDirectoryService();
    await using putter = service.openPutter();
    for (const directory of [LEAF, MIDDLE, ROOT]) await putter.put(directory);
    await putter.close();
    expect(await stored(service)).toBe(3);
    await service[Symbol.asyncDispose]();
    expect(await stored(service)).toBe(0);
  });

  it("takes nothing more into a tree after a directory was refused, and stores nothing of it", async () => {
    const service = new MemoryDirectoryService();
    await using putter = service.openPutter();
    await putter.put(LEAF);
    await expect(putter.put(ROOT)).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(putter.put(MIDDLE)).rejects.toMatchObject(ended);
    await expect(putter.close()).rejects.toMatchObject(ended);
    expect(await stored(service)).toBe(0);
  });

  it("does not close a tree that was dropped or refused", async () => {
    const service = new MemoryDirectoryService();
    const dropped = service.openPutter();
    await dropped.put(LEAF);
    await dropped[Symbol.asyncDispose]();
    await dropped[Symbol.asyncDispose]();
    await expect(dropped.put(LEAF)).rejects.toMatchObject(ended);
    await expect(dropped.close()).rejects.toMatchObject(ended);

    await using refused = service.openPutter();
    await refused.put(MIDDLE).catch(() => undefined);
    await expect(refused.close()).rejects.toMatchObject(ended);
    expect(await stored(service)).toBe(0);
  });

  it("refuses to close an empty tree, and refuses again in the same way", async () => {
    const service = new MemoryDirectoryService();
    await using putter = service.openPutter();
    const [first, second] = await Promise.allSettled([putter.close(), putter.close()]);
    expect(first).toMatchObject({ status: "rejected", reason: { code: "invalid_argument" } });
    expect(second).toEqual(first);
    await expect(putter.put(LEAF)).rejects.toMatchObject(ended);
  });

  it("keeps a tree that was closed when its putter is disposed of meanwhile", async () => {
    const service = new MemoryDirectoryService();
    const putter = service.openPutter();
    await putter.put(LEAF);
    const closing = putter.close();
    await putter[Symbol.asyncDispose]();
    expect((await closing).equals(blake3Digest(encodeDirectory(LEAF).bytes))).toBe(true);
    expect(await stored(service)).toBe(1);
  });

  it("rejects with the reason once a putter was cancelled, and takes nothing more", async () => {
    const service = new MemoryDirectoryService();
    const controller = new AbortController();
    const reason = new Error("enough");
    await using putter = service.openPutter({ signal: controller.signal });
    await putter.put(LEAF);
    controller.abort(reason);
    await expect(putter.put(MIDDLE)).rejects.toBe(reason);
    await expect(putter.close()).rejects.toThrow();
    expect(await stored(service)).toBe(0);
  });
});
