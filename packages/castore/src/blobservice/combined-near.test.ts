import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import { noise } from "../../test/noise.ts";
import { chunksOf, readBack, WatchedBlobService } from "../../test/watched-blobs.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService, BlobWriter } from "./blob-service.ts";
import { ChunkList } from "./chunk-list.ts";
import { ChunkedBlobReader } from "./chunked-reader.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { putBlob } from "./put-blob.ts";

const LARGE = noise(1_500_000);
const OTHER = LARGE.subarray(5);
const SMALL = LARGE.subarray(0, 1000);

/** Longer than any test. */
const AN_HOUR = 3_600_000;

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });

/** The calls of a service and of its readers, writers and streams. */
type Call =
  | "hasMany"
  | "statMany"
  | "open"
  | "readMany"
  | "putMany"
  | "putList"
  | "frames"
  | "write"
  | "close"
  | "dispose";

const READS: readonly Call[] = ["hasMany", "statMany", "open", "readMany", "frames"];
const WRITES: readonly Call[] = ["putMany", "putList", "write", "close", "dispose"];

/** Does something before each of some calls, which may hang or fail. */
class TroubledBlobService extends MemoryBlobService {
  readonly #calls: ReadonlySet<Call>;
  /** `undefined`: there is no trouble. */
  trouble: (() => Promise<unknown>) | undefined;

  constructor(calls: readonly Call[], trouble: () => Promise<unknown>) {
    super();
    this.#calls = new Set(calls);
    this.trouble = trouble;
  }

  async meet(call: Call): Promise<void> {
    if (this.#calls.has(call)) await this.trouble?.();
  }

  override async hasMany(digests: readonly B3Digest[]) {
    await this.meet("hasMany");
    return await super.hasMany(digests);
  }
  override async statMany(digests: readonly B3Digest[]) {
    await this.meet("statMany");
    return await super.statMany(digests);
  }
  override async open(digest: B3Digest) {
    await this.meet("open");
    return await super.open(digest);
  }
  override async readMany(...[blobs]: Parameters<BlobService["readMany"]>) {
    await this.meet("readMany");
    return await super.readMany(blobs);
  }
  override async putMany(...[blobs]: Parameters<BlobService["putMany"]>) {
    await this.meet("putMany");
    return await super.putMany(blobs);
  }
  override async putList(...[digest, list, options]: Parameters<BlobService["putList"]>) {
    await this.meet("putList");
    await super.putList(digest, list, { proven: options?.proven ?? false });
  }
  override async *frames(...[chunks]: Parameters<BlobService["frames"]>) {
    let count = 0;
    for await (const frame of super.frames(chunks)) {
      if (count++ === 2) await this.meet("frames");
      yield frame;
    }
  }
  override openWriter(): BlobWriter {
    const writer = super.openWriter();
    return {
      write: async (data) => {
        await this.meet("write");
        await writer.write(data);
      },
      close: async () => {
        await this.meet("close");
        return await writer.close();
      },
      [Symbol.asyncDispose]: async () => {
        await this.meet("dispose");
        await writer[Symbol.asyncDispose]();
      },
    };
  }
}

afterEach(() => {
  vi.useRealTimers();
});

const hang = () => new Promise<never>(() => undefined);
const fail = async () => {
  throw new CastoreError("internal", "the disk is broken");
};

/** Does everything that a service offers, and expects it to be right. */
async function useAll(service: BlobService, far: BlobService): Promise<void> {
  for (const data of [LARGE, OTHER, SMALL]) {
    const digest = blake3Digest(data);
    expect((await readBack(service, digest)).equals(data)).toBe(true);
    const part = await readBack(service, digest, { offset: 500, length: 1_200_000 });
    expect(part.equals(data.subarray(500, 1_200_500))).toBe(true);
    expect(await service.has(digest)).toBe(true);
    const chunks = await chunksOf(far, digest);
    const stat = { size: data.length, chunks: chunks.length };
    expect(await service.statMany([digest])).toEqual([stat]);
    const found = await service.readMany(chunks);
    expect(Buffer.concat(found as Uint8Array[]).equals(data)).toBe(true);
    const frames = await Array.fromAsync(service.frames(ChunkList.of(chunks)));
    const expected = await Array.fromAsync(far.frames(ChunkList.of(chunks)));
    expect(frames.map((frame) => Buffer.from(frame))).toEqual(
      expected.map((frame) => Buffer.from(frame)),
    );
  }
  const written = LARGE.subarray(9, 800_000);
  const digest = await putBlob(service, written);
  expect((await readBack(far, digest)).equals(written)).toBe(true);
  const [small] = await service.putMany([Buffer.from("small")]);
  expect((await readBack(far, small!)).toString()).toBe("small");
  const whole = LARGE.subarray(0, 2000);
  const halves = [SMALL, LARGE.subarray(1000, 2000)];
  const list = (await service.putMany(halves)).map((digest) => ({ digest, size: 1000 }));
  await service.putList(blake3Digest(whole), ChunkList.of(list));
  expect((await readBack(far, blake3Digest(whole))).equals(whole)).toBe(true);
}

async function origin(): Promise<WatchedBlobService> {
  const far = new WatchedBlobService();
  for (const data of [LARGE, OTHER, SMALL]) await putBlob(far, data);
  return far;
}

describe("CombinedBlobService with a local store that is in trouble", () => {
  const single = [...READS, ...WRITES].map((call) => [call, [call]] as const);
  const cases = [...single, ["all reads", READS], ["all writes", WRITES]] as const;

  it.concurrent.each(cases)("does everything where it hangs: %s", async (_, calls) => {
    const near = new TroubledBlobService(calls, hang);
    const { trouble } = near;
    near.trouble = undefined;
    await putBlob(near, OTHER);
    near.trouble = trouble;
    const far = await origin();
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const timeouts = { nearReadTimeoutMs: 50, nearWriteTimeoutMs: 50 };
    const service = new CombinedBlobService({ near, far, onWarning, ...timeouts });
    await useAll(service, far);
    await service[Symbol.asyncDispose]();
    // A list is stored for nobody who waits, however long that takes, and so is the disposal of a writer.
    if (!["putList", "dispose"].includes(calls[0]!)) {
      expect(warnings.join()).toContain("the local store: no answer for 50 ms");
    }
  });

  it.concurrent.each(cases)("does everything where it fails, and warns: %s", async (_, calls) => {
    const near = new TroubledBlobService(calls, fail);
    const { trouble } = near;
    near.trouble = undefined;
    await putBlob(near, OTHER);
    near.trouble = trouble;
    const far = await origin();
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    await using service = new CombinedBlobService({ near, far, onWarning });
    await useAll(service, far);
    if (calls[0] !== "dispose") {
      await eventually(() => expect(warnings.join()).toContain("the disk is broken"));
    }
  });

  it("lets no reader wait for it to store, nor its own end", async () => {
    const near = new TroubledBlobService(WRITES, hang);
    const far = await origin();
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const timeouts = { nearReadTimeoutMs: AN_HOUR, nearWriteTimeoutMs: AN_HOUR };
    const service = new CombinedBlobService({ near, far, onWarning, ...timeouts });
    for (let i = 0; i < 5; i++) {
      expect((await readBack(service, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
      const part = await readBack(service, blake3Digest(OTHER), { offset: 1_000_000, length: 10 });
      expect(part).toEqual(OTHER.subarray(1_000_000, 1_000_010));
    }
    await service[Symbol.asyncDispose]();
    expect(warnings).toEqual([]);
  });

  it("stores nothing for a while when it is full, and goes on when there is room", async () => {
    let attempts = 0;
    const near = new TroubledBlobService(["putMany"], async () => {
      attempts += 1;
      throw new CastoreError("resource_exhausted", "the disk is full");
    });
    const far = await origin();
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - AN_HOUR });
    await using service = new CombinedBlobService({ near, far, onWarning });
    expect((await readBack(service, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
    await eventually(() => expect(warnings.join()).toContain("the disk is full"));
    const before = attempts;
    for (let i = 0; i < 3; i++) {
      expect((await readBack(service, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
    }
    expect(attempts).toBe(before);
    expect(warnings.length).toBe(attempts);
    vi.useRealTimers();
    near.trouble = undefined;
    await eventually(async () => {
      await readBack(service, blake3Digest(LARGE));
      expect(await near.has(blake3Digest(LARGE))).toBe(true);
    });
  });

  it("reads it again when it answers again", async () => {
    const near = new TroubledBlobService(["open", "readMany"], hang);
    await near.putMany([SMALL]);
    const far = await origin();
    const onWarning = () => undefined;
    await using service = new CombinedBlobService({ near, far, onWarning, nearReadTimeoutMs: 50 });
    const digest = blake3Digest(SMALL);
    expect((await readBack(service, digest)).equals(SMALL)).toBe(true);
    near.trouble = undefined;
    [far.open, far.readMany] = [hang, hang];
    await eventually(async () => {
      const signal = AbortSignal.timeout(200);
      expect((await readBack(service, digest, { signal })).equals(SMALL)).toBe(true);
    });
  });

  it("stores 16 MiB at the same time, and the rest when it is read again", async () => {
    const far = new MemoryBlobService();
    const data = noise(40_000_000);
    const digest = await putBlob(far, data);
    let storing = 0;
    let most = 0;
    const go = Promise.withResolvers<void>();
    const near = new MemoryBlobService();
    const put = near.putMany.bind(near);
    near.putMany = async (blobs, options) => {
      const bytes = blobs.reduce((sum, { length }) => sum + length, 0);
      storing += bytes;
      most = Math.max(most, storing);
      await go.promise;
      storing -= bytes;
      return await put(blobs, options);
    };
    await using service = new CombinedBlobService({ near, far });
    expect((await readBack(service, digest)).equals(data)).toBe(true);
    expect(most).toBeGreaterThan(15 * 1024 * 1024);
    expect(most).toBeLessThanOrEqual(16 * 1024 * 1024);
    go.resolve();
    await eventually(async () => {
      await readBack(service, digest);
      expect(await near.has(digest)).toBe(true);
    });
    expect((await readBack(near, digest)).equals(data)).toBe(true);
  });
});

describe("CombinedBlobService with a local store that lies", () => {
  it("takes wrong chunks from the origin", async () => {
    const near = new WatchedBlobService();
    await putBlob(near, LARGE);
    near.give = (_, data) => data?.fill(7);
    const far = await origin();
    await using service = new CombinedBlobService({ near, far });
    expect((await readBack(service, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
    const asked = [{ digest: blake3Digest(SMALL), size: SMALL.length }];
    near.give = () => Buffer.from("of another length");
    expect((await service.readMany(asked)).map((data) => Buffer.from(data!))).toEqual([SMALL]);
  });

  it("refuses a list of another blob, and from then on takes that of the origin", async () => {
    const near = new MemoryBlobService();
    await putBlob(near, OTHER);
    const far = await origin();
    const list = ChunkList.of(await chunksOf(far, blake3Digest(OTHER)));
    const digest = blake3Digest(LARGE);
    const open = near.open.bind(near);
    let isLying = true;
    near.open = async (asked) => {
      if (!isLying || !asked.equals(digest)) return await open(asked);
      return new ChunkedBlobReader(asked, list, hang);
    };
    const putList = near.putList.bind(near);
    near.putList = async (...args) => {
      await putList(...args);
      isLying = false;
    };
    await using service = new CombinedBlobService({ near, far });
    const read: Uint8Array[] = [];
    const reading = (async () => {
      for await (const data of (await service.read(digest))!) read.push(data);
    })();
    await expect(reading).rejects.toMatchObject({ code: "data_loss" });
    expect(Buffer.concat(read).length).toBe(OTHER.length - list.sizeAt(list.length - 1));
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await eventually(() => expect(isLying).toBe(false));
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    expect((await readBack(near, digest)).equals(LARGE)).toBe(true);
  });
});

describe("disposing of a CombinedBlobService", () => {
  it("abandons what its local store does not finish", async () => {
    let signal: AbortSignal | undefined;
    const near = new MemoryBlobService();
    near.putMany = async (_, options) => {
      signal = options!.signal!;
      return await hang();
    };
    const far = await origin();
    const service = new CombinedBlobService({ near, far, nearWriteTimeoutMs: AN_HOUR });
    await readBack(service, blake3Digest(SMALL));
    await service[Symbol.asyncDispose]();
    expect(signal!.aborted).toBe(true);
  });

  it("ends what is being read from an origin that hangs", async () => {
    const far = await origin();
    far.readMany = async (_, options) => {
      await sleep(AN_HOUR, undefined, { signal: options!.signal! });
      return [];
    };
    const service = new CombinedBlobService({ near: new MemoryBlobService(), far });
    const reading = readBack(service, blake3Digest(SMALL));
    reading.catch(() => undefined);
    await sleep(10);
    await service[Symbol.asyncDispose]();
    await expect(reading).rejects.toThrow();
  });
});
