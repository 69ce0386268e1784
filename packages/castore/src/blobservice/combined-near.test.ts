import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { chunksOf } from "../../test/chunks-of.ts";
import { noise } from "../../test/noise.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import type { BlobService, BlobWriter, ReadOptions } from "./blob-service.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { putBlob } from "./put-blob.ts";

const LARGE = noise(12_000_000);

/** Longer than any test. */
const AN_HOUR = 3_600_000;

const never = (): Promise<never> => new Promise(() => undefined);

/** Does nothing that it is asked to, and heeds no signal, until it is let. */
class StuckBlobService extends MemoryBlobService {
  readonly #stuck: ReadonlySet<string>;
  /** How many writers are neither closed nor disposed of. */
  openWriters = 0;
  isStuck = true;

  /** @param stuck which calls never come back: "write", "close", "dispose" are those of a writer */
  constructor(...stuck: readonly string[]) {
    super();
    this.#stuck = new Set(stuck);
  }

  override async hasMany(digests: readonly B3Digest[]) {
    await this.#maybeNever("hasMany");
    return await Promise.all(digests.map((digest) => super.has(digest)));
  }

  override async open(digest: B3Digest) {
    await this.#maybeNever("open");
    return await super.open(digest);
  }

  override async read(digest: B3Digest, options: ReadOptions = {}) {
    await this.#maybeNever("read");
    const { signal, ...range } = options;
    const stream = await super.read(digest, range);
    return stream && this.#pieces(stream);
  }

  override async readMany(...[blobs]: Parameters<BlobService["readMany"]>) {
    await this.#maybeNever("readMany");
    return await super.readMany(blobs);
  }

  override async putMany(...[blobs]: Parameters<BlobService["putMany"]>) {
    await this.#maybeNever("putMany");
    return await super.putMany(blobs);
  }

  override openWriter(): BlobWriter {
    const writer = super.openWriter();
    this.openWriters += 1;
    let isOpen = true;
    const ended = () => {
      if (isOpen) this.openWriters -= 1;
      isOpen = false;
    };
    return {
      write: async (data) => {
        await this.#maybeNever("write");
        await writer.write(data);
      },
      close: async () => {
        await this.#maybeNever("close");
        return await writer.close().finally(ended);
      },
      [Symbol.asyncDispose]: async () => {
        ended();
        await this.#maybeNever("dispose");
        await writer[Symbol.asyncDispose]();
      },
    };
  }

  async *#pieces(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let count = 0;
    for await (const data of stream) {
      if (count++ === 2) await this.#maybeNever("next");
      yield data;
    }
  }

  async #maybeNever(call: string): Promise<void> {
    while (this.isStuck && this.#stuck.has(call)) await sleep(1);
  }
}

async function readBack(service: BlobService, digest: B3Digest, options?: ReadOptions) {
  return Buffer.from(await collectBytes((await service.read(digest, options))!));
}

async function stored(service: BlobService, blobs: readonly Uint8Array[]): Promise<B3Digest[]> {
  return await Promise.all(blobs.map((data) => putBlob(service, data)));
}

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });

/** Different blobs that end long after a window of what is held of them. */
const manyLarge = (count: number) =>
  Array.from({ length: count }, (_, i) => LARGE.subarray(i, i + 6_000_000));

describe("CombinedBlobService with a near half that is silent", () => {
  it.each([
    ["takes no bytes", ["write", "putMany"]],
    ["never ends a blob", ["close", "putMany"]],
    ["takes no bytes, and does not end when it is told to", ["write", "putMany", "dispose"]],
  ])("lets no reader wait for one that %s, nor its own end", async (_, stuck) => {
    const [near, far] = [new StuckBlobService(...stuck), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    const small = await putBlob(far, LARGE.subarray(0, 1000));
    const timeouts = { nearReadTimeoutMs: AN_HOUR, nearWriteTimeoutMs: AN_HOUR };
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const service = new CombinedBlobService({ near, far, onWarning, ...timeouts });
    const reads = Array.from({ length: 5 }, () => readBack(service, digest));
    for (const found of await Promise.all(reads)) expect(found.equals(LARGE)).toBe(true);
    const range = { offset: 5_000_000, length: 10 };
    expect(await readBack(service, digest, range)).toEqual(LARGE.subarray(5_000_000, 5_000_010));
    for (let i = 0; i < 3; i++) {
      const found = await service.readMany([{ digest: small, size: 1000 }]);
      expect(Buffer.from(found[0]!).equals(LARGE.subarray(0, 1000))).toBe(true);
    }
    await service[Symbol.asyncDispose]();
    expect(warnings).toEqual([]);
  });

  it.each([
    ["answers nothing", ["hasMany", "open", "read", "readMany"]],
    ["gives the beginning of what it has", ["next", "readMany"]],
    ["takes nothing", ["write", "putMany", "close", "dispose"]],
    ["ends nothing", ["close", "dispose"]],
  ])("goes on without one that %s, and warns", async (_, stuck) => {
    const [near, far] = [new StuckBlobService(...stuck), new MemoryBlobService()];
    near.isStuck = false;
    const only = await putBlob(far, LARGE);
    const both = await putBlob(far, LARGE.subarray(5));
    await putBlob(near, LARGE.subarray(5));
    near.isStuck = true;
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const timeouts = { nearReadTimeoutMs: 50, nearWriteTimeoutMs: 50 };
    await using service = new CombinedBlobService({ near, far, onWarning, ...timeouts });
    for (const [digest, data] of [
      [only, LARGE],
      [both, LARGE.subarray(5)],
    ] as const) {
      expect((await readBack(service, digest)).equals(data)).toBe(true);
      const range = { offset: 1_000_000, length: 5_000_000 };
      const found = await readBack(service, digest, range);
      expect(found.equals(data.subarray(1_000_000, 6_000_000))).toBe(true);
      expect(await service.has(digest)).toBe(true);
      expect((await chunksOf(service, digest))!.length).toBeGreaterThan(0);
    }
    const written = await putBlob(service, LARGE.subarray(0, 3_000_000));
    expect(await far.has(written)).toBe(true);
    const [small] = await service.putMany([Buffer.from("small")]);
    const found = await service.readMany([{ digest: small!, size: 5 }]);
    expect(Buffer.from(found[0]!).toString()).toBe("small");
    await eventually(() => expect(warnings.join()).toContain("no answer for 50 ms"));
  });

  it("uses it again when it answers again", async () => {
    const [near, far] = [new StuckBlobService("read"), new MemoryBlobService()];
    const small = LARGE.subarray(0, 1000);
    near.isStuck = false;
    const digest = await putBlob(near, small);
    near.isStuck = true;
    await putBlob(far, small);
    const options = { near, far, onWarning: () => undefined, nearReadTimeoutMs: 50 };
    await using service = new CombinedBlobService(options);
    expect((await readBack(service, digest)).equals(small)).toBe(true);
    near.isStuck = false;
    far.read = never;
    far.open = never;
    await eventually(async () => {
      const signal = AbortSignal.timeout(200);
      expect((await readBack(service, digest, { signal })).equals(small)).toBe(true);
    });
  });
});

describe("CombinedBlobService with a near half that is slow", () => {
  it("keeps what readers have read long before, reading the far blob once more at most", async () => {
    const [near, far] = [new StuckBlobService("write"), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    const readFar = vi.spyOn(far, "read");
    await using service = new CombinedBlobService({ near, far });
    const reads = Array.from({ length: 5 }, () => readBack(service, digest));
    for (const found of await Promise.all(reads)) expect(found.equals(LARGE)).toBe(true);
    expect(readFar).toHaveBeenCalledTimes(1);
    near.isStuck = false;
    await eventually(async () => expect(await near.has(digest)).toBe(true));
    expect((await readBack(near, digest)).equals(LARGE)).toBe(true);
    expect(readFar).toHaveBeenCalledTimes(2);
  });

  it("has kept what was read last when it is disposed of", async () => {
    const [near, far] = [new StuckBlobService("write", "putMany"), new MemoryBlobService()];
    const [read, many] = await stored(far, [LARGE.subarray(0, 1000), LARGE.subarray(0, 2000)]);
    const service = new CombinedBlobService({ near, far });
    expect(await readBack(service, read!)).toHaveLength(1000);
    await service.readMany([{ digest: many!, size: 2000 }]);
    const disposed = service[Symbol.asyncDispose]();
    near.isStuck = false;
    await disposed;
    expect(await near.hasMany([read!, many!])).toEqual([true, true]);
  });

  it("goes on with few copies that readers have left, and keeps the others when they are read again", async () => {
    const [near, far] = [new StuckBlobService("write"), new MemoryBlobService()];
    const digests = await stored(far, manyLarge(12));
    await using service = new CombinedBlobService({ near, far });
    for (const digest of digests) {
      for await (const _ of (await service.read(digest))!) break;
    }
    await eventually(() => expect(near.openWriters).toBe(4));
    near.isStuck = false;
    await eventually(() => expect(near.openWriters).toBe(0));
    const kept = await Promise.all(digests.map((digest) => near.has(digest)));
    expect(kept.filter((has) => has)).toHaveLength(4);
    for (const [i, digest] of digests.entries()) {
      expect((await readBack(service, digest)).equals(manyLarge(12)[i]!)).toBe(true);
      await eventually(async () => expect(await near.has(digest)).toBe(true));
    }
  });

  it("reads what it has no room to copy", async () => {
    const [near, far] = [new StuckBlobService("close", "putMany"), new MemoryBlobService()];
    const blobs = Array.from({ length: 100 }, (_, i) => LARGE.subarray(i, i + 1000));
    const digests = await stored(far, blobs);
    await using service = new CombinedBlobService({ near, far });
    const found = await Promise.all(digests.map((digest) => readBack(service, digest)));
    for (const [i, data] of found.entries()) expect(data.equals(blobs[i]!)).toBe(true);
    expect(near.openWriters).toBe(64);
    near.isStuck = false;
    await eventually(() => expect(near.openWriters).toBe(0));
    for (const digest of digests) await readBack(service, digest);
    await eventually(async () => {
      for (const digest of digests) expect(await near.has(digest)).toBe(true);
    });
  });

  it("gives small blobs that it has no room to keep, and keeps them when they are read again", async () => {
    const [near, far] = [new StuckBlobService("putMany"), new MemoryBlobService()];
    const putNear = vi.spyOn(near, "putMany");
    const blobs = Array.from({ length: 120 }, (_, i) => LARGE.subarray(i, i + 400_000));
    const asked = (await stored(far, blobs)).map((digest) => ({ digest, size: 400_000 }));
    await using service = new CombinedBlobService({ near, far });
    const readAll = async () => {
      for (let from = 0; from < asked.length; from += 10) {
        const found = await service.readMany(asked.slice(from, from + 10));
        for (const [i, data] of found.entries()) {
          expect(Buffer.compare(data!, blobs[from + i]!)).toBe(0);
        }
      }
    };
    await readAll();
    expect(putNear).toHaveBeenCalledTimes(4); // of 4 MB each: 16 MiB may be on their way
    near.isStuck = false;
    await eventually(async () => {
      await readAll();
      for (const { digest } of asked) expect(await near.has(digest)).toBe(true);
    });
  });
});
