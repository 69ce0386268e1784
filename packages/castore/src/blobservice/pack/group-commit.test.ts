import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { expect, it } from "vitest";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CODEC, chunkEntry, HEADER_LENGTH, writeHeader } from "./format.ts";
import { GroupCommit } from "./group-commit.ts";
import { PackBlobService } from "./pack-blob-service.ts";

/** The record of a chunk as it is. */
function recordOf(data: Buffer, isBlob = false): Buffer {
  const { length: size } = data;
  const record = Buffer.alloc(HEADER_LENGTH + size);
  const digest = blake3Digest(data);
  const header = { codec: CODEC.raw, storedSize: size, size, digest, isBlob } as const;
  writeHeader(record, 0, { kind: "chunk", ...header });
  record.set(data, HEADER_LENGTH);
  return record;
}

/** Adds a chunk, and resolves when it is durable. */
async function addChunk(commits: GroupCommit, data: Buffer): Promise<void> {
  const { stored } = await commits.addChunks(recordOf(data), 1);
  await stored;
}

it("commits a blob that comes alone, long after its chunk went with others", async () => {
  const folder = mkdtempSync(join(tmpdir(), "group-commit-"));
  try {
    await (await PackBlobService.open({ path: folder }))[Symbol.asyncDispose]();
    const late = Buffer.from("late");
    {
      await using commits = new GroupCommit({ folder, maxPackSize: 1024 ** 2, maxRecords: 0 });
      const first = addChunk(commits, Buffer.from("first"));
      commits.flush();
      await Promise.all([first, addChunk(commits, late)]); // which began to wait, and went with it
      await sleep(100);
      const digest = blake3Digest(late);
      const records = { digest, list: chunkEntry(digest, late.length) };
      const { stored } = await commits.addBlobs({ records, count: 1, check: () => undefined });
      await stored;
    }
    await using service = await PackBlobService.open({ path: folder });
    expect(await service.has(blake3Digest(late))).toBe(true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it("makes no blobs of chunks that are not wanted as such any more when they are committed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "group-commit-"));
  const [wanted, cancelled] = [Buffer.from("wanted"), Buffer.from("cancelled")];
  const isStored = async () => {
    await using service = await PackBlobService.open({ path: folder });
    return await service.hasMany([wanted, cancelled].map((data) => blake3Digest(data)));
  };
  try {
    expect(await isStored()).toEqual([false, false]);
    {
      await using commits = new GroupCommit({ folder, maxPackSize: 1024 ** 2, maxRecords: 0 });
      const cancel = new AbortController();
      const check = () => cancel.signal.throwIfAborted();
      const one = await commits.addChunks(recordOf(wanted, true), 1);
      const other = await commits.addChunks(recordOf(cancelled, true), 1, { check });
      cancel.abort(new Error("cancelled"));
      commits.flush();
      await one.stored;
      await expect(other.stored).rejects.toThrow("cancelled");
    }
    expect(await isStored()).toEqual([true, false]);
    rmSync(join(folder, "index.sqlite"));
    expect(await isStored()).toEqual([true, true]); // a new index takes all chunks for blobs
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it("takes no more than a bounded number of tiny chunks while it cannot commit", async () => {
  const folder = mkdtempSync(join(tmpdir(), "group-commit-"));
  try {
    await (await PackBlobService.open({ path: folder }))[Symbol.asyncDispose]();
    const batches = Array.from({ length: 40 }, (_, i) =>
      Array.from({ length: 1000 }, (_, j) => Buffer.from(`tiny chunk ${i} ${j}`)),
    );
    {
      await using commits = new GroupCommit({ folder, maxPackSize: 1024 ** 3, maxRecords: 0 });
      using closing = new DisposableStack();
      const index = new Sqlite(join(folder, "index.sqlite"));
      closing.defer(() => index.close());
      index.exec("BEGIN IMMEDIATE"); // as another process does that commits
      let taken = 0;
      const all = batches.map(async (chunks) => {
        const records = Buffer.concat(chunks.map((chunk) => recordOf(chunk)));
        const { stored } = await commits.addChunks(records, chunks.length);
        taken += chunks.length;
        await stored;
      });
      await sleep(500);
      expect(taken).toBeLessThanOrEqual(10_000);
      index.exec("COMMIT");
      await Promise.all(all);
      expect(index.prepare("SELECT count(*) FROM chunks").pluck().get()).toBe(40_000);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
