import { describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { type ServedBlobs, serveBlobs } from "../../../test/served-blobs.ts";
import { MemoryBlobService } from "../../blobservice/memory.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";

const BLOBS = Array.from({ length: 100 }, (_, i) => noise(15_000, i));
const DIGESTS = BLOBS.map((data) => blake3Digest(data));

interface Fixture extends ServedBlobs {
  /** What the server stores. */
  readonly stored: MemoryBlobService;
  /** The signals of the batches that came to be stored, in order. */
  readonly batches: readonly (AbortSignal | undefined)[];
}

/** @param before what the server does before it stores a batch */
async function start(
  before: (blobs: readonly Uint8Array[]) => unknown = () => undefined,
): Promise<Fixture> {
  const batches: (AbortSignal | undefined)[] = [];
  class Stored extends MemoryBlobService {
    override async putMany(...args: Parameters<MemoryBlobService["putMany"]>) {
      batches.push(args[1]?.signal);
      await before(args[0]);
      return await super.putMany(...args);
    }
  }
  const stored = new Stored();
  return Object.assign(await serveBlobs(stored), { stored, batches });
}

describe("small blobs that are put at the same time", () => {
  it("go in few calls", async () => {
    await using fixture = await start();
    const puts = BLOBS.map((data) => putBlob(fixture.blobService, data));
    expect(await Promise.all(puts)).toEqual(DIGESTS);
    expect(fixture.batches.length).toBeLessThan(10);
    expect(await fixture.stored.hasMany(DIGESTS)).toEqual(DIGESTS.map(() => true));
  });

  it("go each by itself where a server refuses them together", async () => {
    const refuse = (blobs: readonly Uint8Array[]) => {
      if (blobs.length > 1) throw new CastoreError("resource_exhausted", "too much");
    };
    await using fixture = await start(refuse);
    const puts = BLOBS.map((data) => putBlob(fixture.blobService, data));
    expect(await Promise.all(puts)).toEqual(DIGESTS);
  });

  it("fail alone where one of them is refused", async () => {
    const bad = BLOBS[50]!;
    const refuse = (blobs: readonly Uint8Array[]) => {
      if (blobs.some((data) => bad.equals(data))) {
        throw new CastoreError("invalid_argument", "not this one");
      }
    };
    await using fixture = await start(refuse);
    const puts = await Promise.allSettled(BLOBS.map((data) => putBlob(fixture.blobService, data)));
    expect(puts.flatMap(({ status }, i) => (status === "rejected" ? i : []))).toEqual([50]);
    expect((puts[50] as PromiseRejectedResult).reason).toMatchObject({ code: "invalid_argument" });
  });

  it("fail together where a server refuses access", async () => {
    let calls = 0;
    const refuse = () => {
      calls += 1;
      throw new CastoreError("permission_denied", "not you");
    };
    await using fixture = await start(refuse);
    const puts = await Promise.allSettled(BLOBS.map((data) => putBlob(fixture.blobService, data)));
    for (const put of puts) {
      expect(put).toMatchObject({ status: "rejected", reason: { code: "permission_denied" } });
    }
    expect(calls).toBeLessThan(10);
  });

  it("are stored but for those that are cancelled", async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await start(() => gate.promise);
    const reason = new Error("enough");
    const cancelling = new AbortController();
    const puts = BLOBS.map((data, i) => {
      const options = i % 2 === 0 ? { signal: cancelling.signal } : undefined;
      return putBlob(fixture.blobService, data, options);
    });
    await expect.poll(() => fixture.batches.length).toBeGreaterThan(0);
    cancelling.abort(reason);
    const cancelled = puts.filter((_, i) => i % 2 === 0);
    for (const put of cancelled) await expect(put).rejects.toBe(reason);
    gate.resolve();
    expect(await Promise.all(puts.filter((_, i) => i % 2 === 1))).toEqual(
      DIGESTS.filter((_, i) => i % 2 === 1),
    );
  });

  it("stop the call that carries them once all of them are cancelled", async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await start(() => gate.promise);
    const cancelling = new AbortController();
    const options = { signal: cancelling.signal };
    const puts = BLOBS.slice(0, 3).map((data) => putBlob(fixture.blobService, data, options));
    await expect.poll(() => fixture.batches.length).toBe(1);
    cancelling.abort();
    expect((await Promise.allSettled(puts)).map(({ status }) => status)).toEqual(
      puts.map(() => "rejected"),
    );
    await expect.poll(() => fixture.batches[0]!.aborted).toBe(true);
    gate.resolve();
    expect(await putBlob(fixture.blobService, BLOBS[0]!)).toEqual(DIGESTS[0]);
  });
});

describe("blobs that are read at the same time", () => {
  it("go in few calls if they are small, and each by itself if not", async () => {
    await using fixture = await start();
    const large = noise(1_000_000);
    await fixture.stored.putMany([...BLOBS, large, new Uint8Array(0)]);
    const absent = blake3Digest(Buffer.from("absent"));
    const all = [...BLOBS, large, undefined, new Uint8Array(0)];
    const reads = [...DIGESTS, blake3Digest(large), absent, blake3Digest(new Uint8Array(0))].map(
      async (digest) => {
        const contents = await fixture.blobService.read(digest);
        return contents && Buffer.from(await collectBytes(contents));
      },
    );
    expect(await Promise.all(reads)).toEqual(all.map((data) => data && Buffer.from(data)));
    expect(fixture.calls.length).toBeLessThan(15);
  });

  it("are told apart where one is damaged", async () => {
    await using fixture = await start();
    const bad = await damagedBlob(fixture.stored);
    await fixture.stored.putMany(BLOBS);
    const reads = await Promise.allSettled(
      [...DIGESTS.slice(0, 20), bad].map(async (digest) => {
        const contents = await fixture.blobService.read(digest);
        return contents && (await collectBytes(contents)).length;
      }),
    );
    expect(reads.slice(0, 20)).toEqual(
      Array.from({ length: 20 }, () => ({ status: "fulfilled", value: 15_000 })),
    );
    expect((reads[20] as PromiseRejectedResult).reason).toMatchObject({ code: "data_loss" });
  });
});

/** Has a store give other bytes than those of a digest. */
async function damagedBlob(stored: MemoryBlobService): Promise<B3Digest> {
  const [digest] = await stored.putMany([noise(10_000, 7_000)]);
  const wrong = noise(10_000, 7_001);
  const { readMany, read } = stored;
  stored.readMany = async (...args) => {
    const found = await readMany.apply(stored, args);
    return found.map((data, i) => (args[0][i]!.digest.equals(digest!) ? wrong : data));
  };
  stored.read = async (...args) => {
    if (!args[0].equals(digest!)) return await read.apply(stored, args);
    return (async function* () {
      yield wrong;
    })();
  };
  return digest!;
}
