import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
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
  it("reads a tree once for all who read it at the same time, and stores it once", async () => {
    const [near, far] = [
      new MemoryDirectoryService(),
      await withTree(new MemoryDirectoryService()),
    ];
    const [readFar, putNear] = [vi.spyOn(far, "getRecursive"), vi.spyOn(near, "openPutter")];
    await using service = new CacheDirectoryService({ near, far });
    const reads = Array.from({ length: 10 }, () => readTree(service));
    const asked = service.get(ROOT);
    for (const found of await Promise.all(reads)) expect(found).toEqual(WHOLE);
    expect(await asked).toBeDefined();
    await eventually(async () => expect(await readTree(near)).toEqual(WHOLE));
    expect(readFar).toHaveBeenCalledTimes(1);
    expect(putNear).toHaveBeenCalledTimes(1);
  });

  it("lets nobody wait for a reader who is slow, and gives that one everything too", async () => {
    const [near, far] = [
      new MemoryDirectoryService(),
      await withTree(new MemoryDirectoryService()),
    ];
    const readFar = vi.spyOn(far, "getRecursive");
    await using service = new CacheDirectoryService({ near, far });
    const slow = service.getRecursive(ROOT)[Symbol.asyncIterator]();
    const found = [digestOf((await slow.next()).value).hex];
    expect(await readTree(service)).toEqual(WHOLE);
    await eventually(async () => expect(await readTree(near)).toEqual(WHOLE));
    for (let next = await slow.next(); !next.done; next = await slow.next()) {
      found.push(digestOf(next.value).hex);
    }
    expect(found).toEqual(WHOLE);
    expect(readFar).toHaveBeenCalledTimes(1);
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

  it("gives up a tree of a far half that is silent when its readers are cancelled", async () => {
    const signals: AbortSignal[] = [];
    const far = new MemoryDirectoryService();
    far.getRecursive = async function* (_, options) {
      signals.push(options!.signal!);
      yield TREE.at(-1)!;
      await new Promise(() => undefined);
    };
    await using service = new CacheDirectoryService({ near: new MemoryDirectoryService(), far });
    const controllers = [new AbortController(), new AbortController()];
    const reads = controllers.map(({ signal }) => readTree(service, { signal }));
    await eventually(() => expect(signals).toHaveLength(1));
    for (const [i, controller] of controllers.entries()) {
      expect(signals[0]!.aborted).toBe(false);
      controller.abort(new Error("enough"));
      await expect(reads[i]).rejects.toThrow("enough");
    }
    expect(signals[0]!.aborted).toBe(true);
  });

  it("keeps every tree that was asked for at the same time, a few at a time", async () => {
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

  it("reads more trees at the same time than it keeps", async () => {
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

describe("CacheDirectoryService with a near half that is silent", () => {
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
