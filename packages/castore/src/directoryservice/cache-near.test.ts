import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { symlinkTarget } from "../model/node.ts";
import { pathComponent } from "../model/path.ts";
import { CacheDirectoryService } from "./cache.ts";
import type { DirectoryPutter, DirectoryService } from "./directory-service.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { MemoryDirectoryService } from "./memory.ts";

/** Longer than any test. */
const AN_HOUR = 3_600_000;

const digestOf = (directory: Directory) => encodeDirectory(directory).digest;

/** Directories in one another, leaves first. */
function chain(name: string, length: number): Directory[] {
  const target = symlinkTarget(Buffer.from(name));
  const link = { name: pathComponent("link"), node: { type: "symlink", target } } as const;
  const directories = [Directory.from([link])];
  while (directories.length < length) {
    const child = directories.at(-1)!;
    const node = { type: "directory", digest: digestOf(child), size: child.size } as const;
    directories.push(Directory.from([{ name: pathComponent("below"), node }]));
  }
  return directories;
}

const TREE = chain("tree", 40);
const ROOT = digestOf(TREE.at(-1)!);

async function put(service: DirectoryService, tree: readonly Directory[]): Promise<B3Digest> {
  await using putter = service.openPutter();
  for (const directory of tree) await putter.put(directory);
  return await putter.close();
}

async function readTree(service: DirectoryService, options?: AbortOptions): Promise<string[]> {
  const found = await Array.fromAsync(service.getRecursive(ROOT, options));
  return found.map((directory) => digestOf(directory).hex);
}

const WHOLE = TREE.map((directory) => digestOf(directory).hex).toReversed();

/** Does nothing that it is asked to, and heeds no signal, until it is let. */
class StuckDirectoryService extends MemoryDirectoryService {
  readonly #stuck: ReadonlySet<string>;
  isStuck = true;

  /** @param stuck which calls never come back: "put", "close", "dispose" are those of a putter */
  constructor(...stuck: readonly string[]) {
    super();
    this.#stuck = new Set(stuck);
  }

  override async get(digest: B3Digest) {
    await this.#maybeNever("get");
    return await super.get(digest);
  }

  override async *getRecursive(digest: B3Digest) {
    let count = 0;
    for await (const directory of super.getRecursive(digest)) {
      if (count++ === 5) await this.#maybeNever("next");
      yield directory;
    }
  }

  override openPutter(): DirectoryPutter {
    const putter = super.openPutter();
    return {
      put: async (directory) => {
        await this.#maybeNever("put");
        await putter.put(directory);
      },
      close: async () => {
        await this.#maybeNever("close");
        return await putter.close();
      },
      [Symbol.asyncDispose]: async () => {
        await this.#maybeNever("dispose");
        await putter[Symbol.asyncDispose]();
      },
    };
  }

  async #maybeNever(call: string): Promise<void> {
    while (this.isStuck && this.#stuck.has(call)) await sleep(1);
  }
}

async function withTree<Service extends DirectoryService>(service: Service): Promise<Service> {
  await put(service, TREE);
  return service;
}

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });

describe("CacheDirectoryService", () => {
  it("reads a directory once for all who get it at the same time, and stores its tree once", async () => {
    const [near, far] = [
      new MemoryDirectoryService(),
      await withTree(new MemoryDirectoryService()),
    ];
    const [getFar, putNear] = [vi.spyOn(far, "get"), vi.spyOn(near, "openPutter")];
    await using service = new CacheDirectoryService({ near, far });
    const found = await Promise.all(Array.from({ length: 10 }, () => service.get(ROOT)));
    for (const directory of found) expect(digestOf(directory!).hex).toBe(ROOT.hex);
    await eventually(async () => expect(await readTree(near)).toEqual(WHOLE));
    expect(getFar).toHaveBeenCalledTimes(1);
    expect(putNear).toHaveBeenCalledTimes(1);
  });

  it("lets nobody wait for a reader who is slow, and gives that one everything too", async () => {
    const [near, far] = [
      new MemoryDirectoryService(),
      await withTree(new MemoryDirectoryService()),
    ];
    await using service = new CacheDirectoryService({ near, far });
    const slow = service.getRecursive(ROOT)[Symbol.asyncIterator]();
    const found = [digestOf((await slow.next()).value).hex];
    expect(await readTree(service)).toEqual(WHOLE);
    await eventually(async () => expect(await readTree(near)).toEqual(WHOLE));
    for (let next = await slow.next(); !next.done; next = await slow.next()) {
      found.push(digestOf(next.value).hex);
    }
    expect(found).toEqual(WHOLE);
  });

  it("goes on for the others when a reader stops or is cancelled", async () => {
    const [near, far] = [
      new MemoryDirectoryService(),
      await withTree(new MemoryDirectoryService()),
    ];
    await using service = new CacheDirectoryService({ near, far });
    const controller = new AbortController();
    const reason = new Error("enough");
    const stopped = (async () => {
      for await (const _ of service.getRecursive(ROOT)) break;
    })();
    const cancelled = (async () => {
      const { signal } = controller;
      for await (const _ of service.getRecursive(ROOT, { signal })) controller.abort(reason);
    })();
    const other = readTree(service);
    await stopped;
    await expect(cancelled).rejects.toBe(reason);
    expect(await other).toEqual(WHOLE);
    await eventually(async () => expect(await readTree(near)).toEqual(WHOLE));
  });

  it("cancels what a reader has asked the origin for when the reader is cancelled", async () => {
    const far = new MemoryDirectoryService();
    let asked: AbortSignal | undefined;
    far.getRecursive = async function* (_, options) {
      asked = options!.signal!;
      yield TREE.at(-1)!;
      await unlessAborted(new Promise(() => undefined), asked);
    };
    await using service = new CacheDirectoryService({ near: new MemoryDirectoryService(), far });
    const controller = new AbortController();
    const reading = readTree(service, { signal: controller.signal });
    await eventually(() => expect(asked).toBeDefined());
    controller.abort(new Error("enough"));
    await expect(reading).rejects.toThrow("enough");
    expect(asked!.aborted).toBe(true);
  });

  it("stores the tree of every directory that was read at the same time, four at a time", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    const roots: B3Digest[] = [];
    for (let i = 0; i < 30; i++) roots.push(await put(far, chain(`${i}`, 3)));
    let reading = 0;
    let most = 0;
    const readFar = far.getRecursive.bind(far);
    far.getRecursive = async function* (digest, options) {
      most = Math.max(most, ++reading);
      yield* readFar(digest, options);
      reading -= 1;
    };
    await using service = new CacheDirectoryService({ near, far });
    const found = await Promise.all(roots.map((root) => service.get(root)));
    expect(found.every((directory) => directory !== undefined)).toBe(true);
    await eventually(async () => {
      for (const root of roots) expect(await near.get(root)).toBeDefined();
    });
    expect(most).toBeLessThanOrEqual(4);
  });

  it("reads more trees at the same time than it stores", async () => {
    const [near, far] = [new StuckDirectoryService("close"), new MemoryDirectoryService()];
    const roots: B3Digest[] = [];
    for (let i = 0; i < 40; i++) roots.push(await put(far, chain(`${i}`, 3)));
    const options = { near, far, nearWriteTimeoutMs: AN_HOUR };
    await using service = new CacheDirectoryService(options);
    const readAll = () =>
      Promise.all(roots.map((root) => Array.fromAsync(service.getRecursive(root))));
    for (const tree of await readAll()) expect(tree).toHaveLength(3);
    near.isStuck = false;
    await eventually(async () => {
      for (const tree of await readAll()) expect(tree).toHaveLength(3);
      for (const root of roots) expect(await near.get(root)).toBeDefined();
    });
  });
});

describe("CacheDirectoryService with a local store that hangs", () => {
  it.each([
    ["takes nothing", ["put"]],
    ["ends nothing, whatever it is told", ["close", "dispose"]],
  ])("lets no reader wait for one that %s, nor its own end", async (_, stuck) => {
    const near = new StuckDirectoryService(...stuck);
    const far = await withTree(new MemoryDirectoryService());
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const timeouts = { nearReadTimeoutMs: AN_HOUR, nearWriteTimeoutMs: AN_HOUR };
    const service = new CacheDirectoryService({ near, far, onWarning, ...timeouts });
    const reads = Array.from({ length: 5 }, () => readTree(service));
    for (const found of await Promise.all(reads)) expect(found).toEqual(WHOLE);
    expect(await service.get(ROOT)).toBeDefined();
    await service[Symbol.asyncDispose]();
    expect(warnings).toEqual([]);
  });

  it.each([
    ["answers nothing", ["get"]],
    ["gives the beginning of what it has", ["next"]],
    ["takes nothing", ["put", "dispose"]],
    ["ends nothing", ["close", "dispose"]],
  ])("goes on without one that %s, and warns", async (_, stuck) => {
    const near = new StuckDirectoryService(...stuck);
    near.isStuck = false;
    if (stuck.includes("next")) await put(near, TREE);
    near.isStuck = true;
    const far = await withTree(new MemoryDirectoryService());
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const timeouts = { nearReadTimeoutMs: 50, nearWriteTimeoutMs: 50 };
    await using service = new CacheDirectoryService({ near, far, onWarning, ...timeouts });
    expect(await readTree(service)).toEqual(WHOLE);
    expect(await service.get(ROOT)).toBeDefined();
    const written = await put(service, chain("another", 3));
    expect(await far.get(written)).toBeDefined();
    await eventually(() => expect(warnings.join()).toContain("no answer for 50 ms"));
  });
});
