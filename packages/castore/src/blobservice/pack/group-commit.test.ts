import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CODEC, chunkEntry, HEADER_LENGTH, writeHeader } from "./format.ts";
import { GroupCommit } from "./group-commit.ts";
import { PackBlobService } from "./pack-blob-service.ts";

/** Adds a chunk as it is, and resolves when it is durable. */
async function addChunk(commits: GroupCommit, data: Buffer): Promise<void> {
  const { length: size } = data;
  const record = Buffer.alloc(HEADER_LENGTH + size);
  const digest = blake3Digest(data);
  writeHeader(record, 0, { kind: "chunk", codec: CODEC.raw, storedSize: size, size, digest });
  record.set(data, HEADER_LENGTH);
  const { stored } = await commits.addChunks(record, 1);
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
