import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { noise } from "../../../test/noise.ts";
import { PackStore } from "../../../test/pack-store.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { blobRecord, CODEC, chunkEntry, HEADER_LENGTH, writeHeader } from "./format.ts";
import { PackWriter, type Records } from "./pack-writer.ts";

const store = new PackStore();

/** Whether each commit of a database waited for the disk. */
let waits: boolean[] = [];

beforeEach(() => {
  const exec = Sqlite.prototype.exec;
  vi.spyOn(Sqlite.prototype, "exec").mockImplementation(function (this: Sqlite.Database, sql) {
    if (sql === "COMMIT") waits.push(this.pragma("synchronous", { simple: true }) === 2);
    return exec.call(this, sql);
  });
});
afterEach(() => void vi.restoreAllMocks());

function chunkRecord(data: Uint8Array, isBlob = false): Records {
  const bytes = Buffer.alloc(HEADER_LENGTH + data.length);
  const { length: size } = data;
  const header = { codec: CODEC.raw, storedSize: size, size, digest: blake3Digest(data) } as const;
  writeHeader(bytes, 0, { kind: "chunk", ...header, isBlob });
  bytes.set(data, HEADER_LENGTH);
  return { bytes, length: bytes.length };
}

function recordOfBlob(data: Uint8Array): Records {
  const digest = blake3Digest(data);
  const bytes = blobRecord(digest, chunkEntry(digest, data.length));
  return { bytes, length: bytes.length };
}

describe("a commit to packs", () => {
  const [first, second, third] = [noise(500, 1), noise(600, 2), noise(700, 3)] as const;
  const chunks = (...all: Uint8Array[]) => all.map((data) => chunkRecord(data));
  const marked = (...all: Uint8Array[]) => all.map((data) => chunkRecord(data, true));
  const blobs = (...all: Uint8Array[]) => all.map(recordOfBlob);
  const pair = () => {
    const list = Buffer.concat(
      [first, second].map((data) => chunkEntry(blake3Digest(data), data.length)),
    );
    const bytes = blobRecord(blake3Digest(Buffer.concat([first, second])), list);
    return [{ bytes, length: bytes.length }];
  };

  it.each([
    [
      "not if each blob is a chunk of it",
      false,
      { chunks: chunks(second, third), blobs: blobs(third, second) },
    ],
    ["not if each chunk is marked", false, { chunks: marked(second, third), blobs: [] }],
    ["not if a marked chunk comes twice", false, { chunks: marked(second, second), blobs: [] }],
    ["not if a marked chunk is stored", false, { chunks: marked(first), blobs: [] }],
    [
      "not if some are marked",
      false,
      { chunks: [...marked(second), ...chunks(third)], blobs: blobs(third) },
    ],
    [
      "if one of several is not marked",
      true,
      { chunks: [...marked(second), ...chunks(third)], blobs: [] },
    ],
    ["not if others are stored", false, { chunks: chunks(second), blobs: blobs(second, first) }],
    ["if a chunk belongs to no blob", true, { chunks: chunks(second, third), blobs: blobs(third) }],
    ["if there are but chunks", true, { chunks: chunks(second), blobs: [] }],
    ["if a blob has two chunks", true, { chunks: chunks(second), blobs: pair() }],
    [
      "if a chunk was forgotten",
      true,
      { chunks: [], blobs: [], lost: [{ blob: blake3Digest(first).bytes }] },
    ],
  ])("waits for the index to be durable: %s", async (_, isWaiting, group) => {
    await (await store.open())[Symbol.asyncDispose]();
    using writer = await PackWriter.open(store.path, 1_000_000);
    await writer.commit({ chunks: chunks(first), blobs: blobs(first), lost: [] });
    waits = [];
    expect(await writer.commit({ lost: [], ...group })).toEqual([]);
    expect(waits.some((wait) => wait)).toBe(isWaiting);
  });

  it.each([
    ["of a record", { chunks: chunks(second), blobs: blobs(first, second) }],
    ["that is marked", { chunks: marked(first, second), blobs: [] }],
  ])(
    "waits for the index to be durable if a blob %s is a chunk that no blob has used",
    async (_, group) => {
      await (await store.open())[Symbol.asyncDispose]();
      {
        using writer = await PackWriter.open(store.path, 1_000_000);
        await writer.commit({ chunks: chunks(first), blobs: [], lost: [] });
        waits = [];
        await writer.commit({ ...group, lost: [] });
        expect(waits).toEqual([true]);
      }
      await using service = await store.open();
      for (const data of [first, second]) expect(await service.has(blake3Digest(data))).toBe(true);
    },
  );

  it("makes blobs of the chunks that are marked, of others none", async () => {
    await (await store.open())[Symbol.asyncDispose]();
    {
      using writer = await PackWriter.open(store.path, 1_000_000);
      const both = [...marked(first), ...chunks(second, third), ...marked(third)];
      expect(await writer.commit({ chunks: both, blobs: [], lost: [] })).toEqual([]);
    }
    await using service = await store.open();
    const has = await service.hasMany([first, second, third].map((data) => blake3Digest(data)));
    expect(has).toEqual([true, false, true]);
  });
});
