import { cpSync, rmSync, statSync, truncateSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { blobContents, type FinishedBlob } from "../../../test/blob-contents.ts";
import { chunksOf } from "../../../test/chunks-of.ts";
import { cutOff, flipBits, type Span } from "../../../test/damage.ts";
import { noise } from "../../../test/noise.ts";
import { PackStore, readBack } from "../../../test/pack-store.ts";
import { WritingProcess } from "../../../test/writing-process.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { putBlob } from "../put-blob.ts";
import type { PackBlobService } from "./pack-blob-service.ts";

const store = new PackStore();
const SCRIPT = new URL("../../../test/write-blobs.ts", import.meta.url);
const write = (seed: string, onFinished?: (blob: FinishedBlob) => void) =>
  new WritingProcess<FinishedBlob>(SCRIPT, [store.path, seed], onFinished);
const digestOf = ({ hex }: FinishedBlob) => B3Digest.fromBytes(Buffer.from(hex, "hex"));

async function expectWhole(service: PackBlobService, digest: B3Digest): Promise<void> {
  expect(blake3Digest(await readBack(service, digest)).equals(digest)).toBe(true);
}

/** Whether a blob is there, whole. */
async function isThere(service: PackBlobService, digest: B3Digest): Promise<boolean> {
  try {
    const stream = await service.read(digest);
    if (stream === undefined) return false;
    expect(blake3Digest(await collectBytes(stream)).equals(digest)).toBe(true);
    return true;
  } catch (error) {
    if (error instanceof CastoreError && error.code === "data_loss") return false;
    throw error;
  }
}

describe("a process that is killed", () => {
  it("leaves every blob whole whose writer had closed, of many at the same time", async () => {
    const finished: FinishedBlob[] = [];
    for (let round = 0; round < 3; round++) {
      const writer = write(`${round}`);
      await writer.finishes(3 + round * 5);
      await writer.kill();
      finished.push(...writer.finished);
    }
    await using service = await store.open();
    for (const blob of finished) await expectWhole(service, digestOf(blob));
    const index = new Sqlite(store.index);
    const blobs = index.prepare<[], Buffer>("SELECT digest FROM blobs").pluck().all();
    index.close();
    for (const digest of blobs) await expectWhole(service, B3Digest.fromBytes(digest));
  });

  it("harms nobody of those who write the same blobs and others to the same store", async () => {
    await using service = await store.open();
    const reading: Promise<void>[] = [];
    const read = (blob: FinishedBlob) => {
      reading.push(expectWhole(service, digestOf(blob)));
    };
    const writers = ["same", "same", "other"].map((seed) => write(seed, read));
    const [victim, ...others] = writers;
    await Promise.all(writers.map((writer) => writer.finishes(20)));
    await victim!.kill();
    await Promise.all(others.map((writer) => writer.finishes(20)));
    for (const writer of others) await writer.kill();
    await Promise.all(reading);
    await using again = await store.open();
    for (const { finished } of writers) {
      for (const blob of finished) await expectWhole(again, digestOf(blob));
    }
  });
});

describe("a store that was damaged after a process was killed", () => {
  const before = [noise(700_000, 1), noise(5_000, 2)];

  /** Has a process write to a store that holds some blobs, and kills it. */
  async function killWriter(): Promise<{ finished: readonly FinishedBlob[]; size: number }> {
    {
      await using service = await store.open();
      for (const data of before) await putBlob(service, data);
    }
    const { size } = statSync(store.packOf());
    const writer = write("damaged");
    await writer.finishes(20);
    await writer.kill();
    return { finished: writer.finished, size };
  }

  /** Three seeds, for each of which the store is made again what it is now. */
  function* eachTimeAsItWas(): Generator<number> {
    const copy = `${store.path} as it was`;
    cpSync(store.path, copy, { recursive: true });
    for (let seed = 1; seed <= 3; seed++) {
      rmSync(store.path, { recursive: true });
      cpSync(copy, store.path, { recursive: true });
      yield seed;
    }
  }

  /** What of a pack a blob is made of, as the index has it. */
  function spansOf(chunks: readonly B3Digest[]): Span[] {
    const index = new Sqlite(store.index);
    const query = index.prepare<[Uint8Array], [number, number]>(
      `SELECT "offset", "offset" + stored_size FROM chunks WHERE digest = ?`,
    );
    const spans = chunks.map((chunk) => query.raw().get(chunk.bytes)!);
    index.close();
    return spans.map(([from, to]) => ({ from, to }));
  }

  /** Puts everything until it is there: damage that was not met before is met by reading. */
  async function expectHealing(service: PackBlobService, blobs: readonly Uint8Array[]) {
    for (const data of blobs) {
      const digest = blake3Digest(data);
      do await putBlob(service, data);
      while (!(await isThere(service, digest)));
    }
  }

  it.each([
    ["cut off", cutOff],
    ["full of flipped bits", flipBits],
  ])("has all that is outside of a pack's tail that is %s, and heals", async (_, damage) => {
    const { finished, size } = await killWriter();
    for (const seed of eachTimeAsItWas()) {
      const damaged = damage(store.packOf(), seed, size);
      {
        await using service = await store.open({ onCorrupt: () => undefined });
        for (const data of before) await expectWhole(service, blake3Digest(data));
        for (const blob of finished) {
          const chunks = (await chunksOf(service, digestOf(blob)))!;
          const spans = spansOf(chunks.map(({ digest }) => digest));
          const isHit = spans.some((a) => damaged.some((b) => a.from < b.to && b.from < a.to));
          expect(await isThere(service, digestOf(blob)), `with seed ${seed}`).toBe(!isHit);
        }
        const blobs = finished.map(({ worker, i }) => blobContents("damaged", worker, i));
        await expectHealing(service, [...before, ...blobs]);
      }
      rmSync(store.index);
      await using service = await store.open({ onCorrupt: () => undefined });
      for (const data of before) await expectWhole(service, blake3Digest(data));
      // The record of a blob of several chunks may be what was hit, which nobody has met until now.
      for (const blob of finished) {
        const there = await isThere(service, digestOf(blob));
        if (!there) expect(blob.i % 7, `with seed ${seed}`).toBe(0);
      }
    }
  });

  it.each([
    ["cut off", cutOff],
    ["full of flipped bits", flipBits],
  ])("gives no other bytes when the log of its index is %s", async (_, damage) => {
    const { finished } = await killWriter();
    const log = `${store.index}-wal`;
    let lost = 0;
    for (const seed of eachTimeAsItWas()) {
      damage(log, seed);
      await using service = await store.open({ onCorrupt: () => undefined });
      for (const data of before) await expectWhole(service, blake3Digest(data));
      for (const blob of finished) if (!(await isThere(service, digestOf(blob)))) lost += 1;
      const blobs = finished.map(({ worker, i }) => blobContents("damaged", worker, i));
      await expectHealing(service, [...before, ...blobs]);
      for (const blob of finished) await expectWhole(service, digestOf(blob));
    }
    expect(lost).toBeGreaterThan(0);
  });

  it("has all that it ever had when the log that held all of its index is cut off", async () => {
    const writer = write("new");
    await writer.finishes(20);
    await writer.kill();
    truncateSync(`${store.index}-wal`, 1000);
    const { service, reports } = await store.openReporting();
    await using _service = service;
    expect(reports[0]).toContain("a new one is made from the packs");
    for (const blob of writer.finished) await expectWhole(service, digestOf(blob));
  });
});
