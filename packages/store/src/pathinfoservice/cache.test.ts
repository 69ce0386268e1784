import { type AbortOptions, blake3Digest } from "@tvix/castore";
import { describe, expect, it, vi } from "vitest";
import { StoreError } from "../errors.ts";
import { StorePath } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { CachePathInfoService } from "./cache.ts";
import { MemoryPathInfoService } from "./memory.ts";

function pathInfo(first: number, name = `name-${first}`): PathInfo {
  const hashPart = new Uint8Array(20);
  hashPart[0] = first;
  return {
    storePath: StorePath.from(hashPart, name),
    node: { type: "file", digest: blake3Digest(new Uint8Array(0)), size: 0n, executable: false },
    references: [],
    narSize: 112n,
    narSha256: new Uint8Array(32),
    signatures: [],
  };
}

const hashOf = ({ storePath }: PathInfo) => storePath.hashPart;

/** Notes how often it is asked. */
class CountingPathInfoService extends MemoryPathInfoService {
  asked = 0;

  override get(hashPart: Uint8Array, options?: AbortOptions) {
    this.asked += 1;
    return super.get(hashPart, options);
  }
}

class BrokenPathInfoService extends MemoryPathInfoService {
  override get(): Promise<never> {
    return Promise.reject(new StoreError("unavailable", "the disk is gone"));
  }
  override put = this.get;
  override async *listPages(): AsyncGenerator<never> {
    yield await this.get();
  }
}

const never = (): Promise<never> => new Promise(() => undefined);

/** Longer than any test. */
const AN_HOUR = 3_600_000;

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });

describe("CachePathInfoService", () => {
  it("stores locally what comes from the origin, which is asked once for all who ask at the same time", async () => {
    const [near, far] = [new MemoryPathInfoService(), new CountingPathInfoService()];
    const one = pathInfo(1);
    await far.put(one);
    const service = new CachePathInfoService({ near, far });
    const found = await Promise.all(Array.from({ length: 10 }, () => service.get(hashOf(one))));
    expect(found).toEqual(Array.from({ length: 10 }, () => one));
    expect(far.asked).toBe(1);
    await eventually(async () => expect(await near.get(hashOf(one))).toEqual(one));
    await service.get(hashOf(one));
    expect(far.asked).toBe(1);
  });

  it("answers the others when one is cancelled", async () => {
    const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
    await far.put(pathInfo(1));
    const service = new CachePathInfoService({ near, far });
    const controller = new AbortController();
    const reason = new Error("enough");
    const cancelled = service.get(hashOf(pathInfo(1)), { signal: controller.signal });
    const other = service.get(hashOf(pathInfo(1)));
    controller.abort(reason);
    await expect(cancelled).rejects.toBe(reason);
    expect(await other).toEqual(pathInfo(1));
  });

  it("lists both stores in order, and stores locally what was in the origin only", async () => {
    const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
    for (const first of [1, 3, 5]) await near.put(pathInfo(first, "near"));
    for (const first of [2, 3, 6]) await far.put(pathInfo(first, "far"));
    const service = new CachePathInfoService({ near, far });
    const names = (await Array.fromAsync(service.list())).map(({ storePath }) => [
      storePath.hashPart[0],
      storePath.name,
    ]);
    expect(names).toEqual([
      [1, "near"],
      [2, "far"],
      [3, "far"],
      [5, "near"],
      [6, "far"],
    ]);
    await eventually(async () => {
      for (const first of [2, 6]) expect(await near.get(hashOf(pathInfo(first)))).toBeDefined();
    });
  });

  it("does everything when the local store fails, and warns", async () => {
    const [near, far] = [new BrokenPathInfoService(), new MemoryPathInfoService()];
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const service = new CachePathInfoService({ near, far, onWarning });
    await service.put(pathInfo(1));
    expect(await service.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1));
    expect(await Array.fromAsync(service.list())).toEqual([pathInfo(1)]);
    expect(warnings.join()).toContain("the disk is gone");
  });

  it("stores nothing locally that the origin refused", async () => {
    const [near, far] = [new MemoryPathInfoService(), new BrokenPathInfoService()];
    const service = new CachePathInfoService({ near, far });
    await expect(service.put(pathInfo(1))).rejects.toThrow("the disk is gone");
    await expect(service.get(hashOf(pathInfo(1)))).rejects.toThrow("the disk is gone");
    expect(await near.get(hashOf(pathInfo(1)))).toBeUndefined();
  });

  it("stores a long listing that is read faster than it can be stored", async () => {
    const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
    for (let first = 0; first < 250; first++) await far.put(pathInfo(first));
    let putting = 0;
    let most = 0;
    const put = near.put.bind(near);
    near.put = async (pathInfo, options) => {
      most = Math.max(most, ++putting);
      await new Promise((resolve) => setImmediate(resolve));
      putting -= 1;
      return await put(pathInfo, options);
    };
    await using service = new CachePathInfoService({ near, far });
    expect(await Array.fromAsync(service.list())).toHaveLength(250);
    await eventually(async () => {
      expect(await Array.fromAsync(near.list())).toHaveLength(250);
    });
    expect(most).toBeLessThanOrEqual(64);
  });

  it("does not keep what was asked for in place of what was put since", async () => {
    const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
    await far.put(pathInfo(1, "old"));
    const put = near.put.bind(near);
    near.put = async (pathInfo, options) => {
      if (pathInfo.storePath.name === "old") await new Promise((resolve) => setTimeout(resolve, 5));
      return await put(pathInfo, options);
    };
    await using service = new CachePathInfoService({ near, far });
    expect(await service.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1, "old"));
    await service.put(pathInfo(1, "new"));
    expect(await near.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1, "new"));
  });

  it("lets no reader wait for a local store that takes nothing, nor its own end", async () => {
    const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
    for (const first of [1, 2, 3]) await far.put(pathInfo(first));
    near.put = never;
    const timeouts = { nearReadTimeoutMs: AN_HOUR, nearWriteTimeoutMs: AN_HOUR };
    const service = new CachePathInfoService({ near, far, ...timeouts });
    expect(await service.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1));
    expect(await service.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1));
    expect(await Array.fromAsync(service.list())).toHaveLength(3);
    await service[Symbol.asyncDispose]();
  });

  it.each(["get", "listPages", "put"] as const)(
    "goes on without a local store whose %s never comes back, and warns",
    async (stuck) => {
      const [near, far] = [new MemoryPathInfoService(), new MemoryPathInfoService()];
      await far.put(pathInfo(1));
      if (stuck === "listPages") near.listPages = waiting;
      else near[stuck] = never;
      const warnings: string[] = [];
      const onWarning = (message: string) => void warnings.push(message);
      const timeouts = { nearReadTimeoutMs: 50, nearWriteTimeoutMs: 50 };
      await using service = new CachePathInfoService({ near, far, onWarning, ...timeouts });
      expect(await service.get(hashOf(pathInfo(1)))).toEqual(pathInfo(1));
      await service.put(pathInfo(2));
      expect(await Array.fromAsync(service.list())).toEqual([pathInfo(1), pathInfo(2)]);
      await eventually(() => expect(warnings.join()).toContain("no answer for 50 ms"));
    },
  );
});

async function* waiting(): AsyncGenerator<never> {
  yield await never();
}
