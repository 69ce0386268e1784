import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { flipBit, PackStore, readBack } from "../../../test/pack-store.ts";
import { canMount, fillDisk, mountSmallDisk, unmount } from "../../../test/small-disk.ts";
import { collectBytes, equalBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { ChunkList } from "../chunk-list.ts";
import { putBlob } from "../put-blob.ts";

const store = new PackStore();

describe("PackBlobService", () => {
  it("keeps blobs from one opening to the next", async () => {
    const large = noise(3_000_000);
    const digests: B3Digest[] = [];
    {
      await using service = await store.open();
      digests.push(await putBlob(service, Buffer.from("small")), await putBlob(service, large));
    }
    await using service = await store.open();
    expect(Buffer.from(await readBack(service, digests[0]!)).toString()).toBe("small");
    expect(equalBytes(await readBack(service, digests[1]!), large)).toBe(true);
  });

  it("compresses what can be compressed, and leaves the rest as it is", async () => {
    await using service = await store.open();
    await putBlob(service, Buffer.alloc(400_000, "compressible "));
    expect(statSync(store.packOf()).size).toBeLessThan(10_000);
    await putBlob(service, noise(300_000));
    expect(statSync(store.packOf()).size).toBeGreaterThan(300_000);
  });

  it("adds nothing for bytes that it has", async () => {
    await using service = await store.open();
    const contents = noise(2_000_000);
    await putBlob(service, contents);
    const { size } = statSync(store.packOf());
    await putBlob(service, contents);
    await putBlob(service, contents.subarray(0, 100)); // new, one chunk
    expect(statSync(store.packOf()).size).toBe(size + 52 + 100);
  });

  it("takes more than is in flight at a time from buffers that are freed after each write", async () => {
    const contents = noise(40_000_000);
    await using service = await store.open();
    await using writer = service.openWriter();
    for (let at = 0; at < contents.length; at += 1_000_000) {
      const lent = new Uint8Array(contents.subarray(at, at + 1_000_000));
      await writer.write(lent);
      lent.buffer.transfer(0); // nothing of it is kept
    }
    expect((await writer.close()).equals(blake3Digest(contents))).toBe(true);
  });

  it("begins a new pack when one is full", async () => {
    await using service = await store.open({ maxPackSize: 300_000 });
    const blobs = [1, 2, 3, 4].map((seed) => noise(200_000, seed));
    const digests = [];
    for (const blob of blobs) digests.push(await putBlob(service, blob));
    expect(readdirSync(join(store.path, "packs"))).toEqual(
      [1, 2, 3, 4].map((pack) => `0000000${pack}.pack`),
    );
    for (const [i, digest] of digests.entries()) {
      expect(equalBytes(await readBack(service, digest), blobs[i]!)).toBe(true);
    }
  });

  it("stores chunks of every size that is offered, of which some cannot be compressed", async () => {
    for (const averageChunkSize of [2 ** 14, 2 ** 22]) {
      await using service = await store.open({ averageChunkSize });
      const dense = noise(9_000_000, averageChunkSize);
      const sparse = Buffer.alloc(9_000_000, `of ${averageChunkSize} bytes `);
      const digests = await Promise.all([putBlob(service, dense), putBlob(service, sparse)]);
      expect(equalBytes(await readBack(service, digests[0]!), dense)).toBe(true);
      expect(equalBytes(await readBack(service, digests[1]!), sparse)).toBe(true);
    }
  });

  it("gives what was put in one batch, dense and sparse blobs in turn, each as it was", async () => {
    await using service = await store.open();
    const blobs = Array.from({ length: 300 }, (_, i) =>
      i % 2 === 0 ? noise(i * 41, i) : Buffer.alloc(i * 97, `blob ${i} `),
    );
    const digests = await service.putMany(blobs);
    const wanted = digests.map((digest, i) => ({ digest, size: blobs[i]!.length }));
    const read = await service.readMany(wanted.toReversed());
    read.toReversed().forEach((contents, i) => {
      expect(contents !== undefined && equalBytes(contents, blobs[i]!)).toBe(true);
    });
  });

  it("makes up several long blobs of chunks at the same time", async () => {
    await using service = await store.open();
    const parts = Array.from({ length: 16 }, (_, i) => noise(100_000, i));
    const chunks = await service.putMany(parts);
    await Promise.all(
      parts.map(async (_, first) => {
        const order = parts.map((_, i) => (i + first) % parts.length).flatMap((i) => [i, i]);
        const digest = blake3Digest(Buffer.concat(order.map((i) => parts[i]!)));
        const list = ChunkList.of(order.map((i) => ({ digest: chunks[i]!, size: 100_000 })));
        await service.putList(digest, list);
        expect(await service.has(digest)).toBe(true);
      }),
    );
  });

  it("makes no folder for chunks of a size that is not offered", async () => {
    await expect(store.open({ averageChunkSize: 1000 })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    expect(existsSync(store.path)).toBe(false);
  });

  it("uses the chunks of a writer that was dropped, but does not show them", async () => {
    const contents = noise(4_000_000);
    {
      await using service = await store.open();
      await using writer = service.openWriter();
      await writer.write(contents);
    }
    const { size } = statSync(store.packOf());
    expect(size).toBeGreaterThan(3_000_000);
    await using service = await store.open();
    const digest = blake3Digest(contents);
    expect(await service.has(digest)).toBe(false);
    await putBlob(service, contents);
    expect(statSync(store.packOf()).size).toBeLessThan(size + 1_000_000);
    for (const chunk of (await chunksOf(service, digest))!) {
      expect(await service.has(chunk.digest)).toBe(true);
    }
  });

  it("takes the same and other blobs from several services on one folder", async () => {
    await using one = await store.open();
    await using other = await store.open();
    const blobs = Array.from({ length: 20 }, (_, i) => noise(90_000, i % 10));
    const digests = await Promise.all(
      blobs.map((blob, i) => putBlob(i % 2 === 0 ? one : other, blob)),
    );
    for (const [i, digest] of digests.entries()) {
      expect(equalBytes(await readBack(i % 2 === 0 ? other : one, digest), blobs[i]!)).toBe(true);
    }
  });
});

describe("a pack that was damaged", () => {
  const contents = noise(1_500_000);
  const digest = blake3Digest(contents);

  beforeEach(async () => {
    await using service = await store.open();
    await putBlob(service, contents);
  });

  it.each([
    ["a byte that flipped", () => flipBit(store.packOf(), 700_000)],
    ["an end that is missing", () => truncateSync(store.packOf(), 900_000)],
    ["a file that is missing", () => rmSync(store.packOf())],
  ])("counts as absent where it has %s, until the blob is put again", async (_, damage) => {
    damage();
    const { service, reports } = await store.openReporting();
    await using _service = service;
    await expect(readBack(service, digest)).rejects.toMatchObject({ code: "data_loss" });
    expect(reports[0]).toContain(store.packOf());
    expect(await service.has(digest)).toBe(false);
    expect(await service.read(digest)).toBeUndefined();

    // A chunk that is damaged but was not met yet is met by one of the reads, and then healed too.
    for (let healed = false; !healed; ) {
      await putBlob(service, contents);
      healed = await readBack(service, digest).then(
        (found) => equalBytes(found, contents),
        () => false,
      );
    }
  });

  it("gives the rest of a batch where it is damaged", async () => {
    const blobs = [1, 2, 3, 4].map((seed) => noise(1000, seed + 10));
    const { service, reports } = await store.openReporting();
    await using _service = service;
    const { size } = statSync(store.packOf());
    const digests = await service.putMany(blobs);
    flipBit(store.packOf(), size + 52 + 1000 + 52 + 7); // in the second of them
    const wanted = digests.map((digest) => ({ digest, size: 1000 }));
    const read = await service.readMany(wanted);
    const found = read.map((contents, i) => contents && equalBytes(contents, blobs[i]!));
    expect(found).toEqual([true, undefined, true, true]);
    expect(reports[0]).toContain(`${digests[1]}`);
    expect(await service.hasMany(digests)).toEqual([true, false, true, true]);
    await service.putMany(blobs);
    expect(equalBytes(await readBack(service, digests[1]!), blobs[1]!)).toBe(true);
  });

  it("makes up no blob with others where one of them is damaged, until it is put again", async () => {
    const blobs = [1, 2, 3].map((seed) => noise(100_000, seed + 20));
    const whole = Buffer.concat(blobs);
    const { service, reports } = await store.openReporting();
    await using _service = service;
    const { size } = statSync(store.packOf());
    const digests = await service.putMany(blobs);
    const list = ChunkList.of(digests.map((digest) => ({ digest, size: 100_000 })));
    flipBit(store.packOf(), size + 52 + 100_000 + 52 + 7); // in the second of them
    await expect(service.putList(blake3Digest(whole), list)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(`${digests[1]}`),
    });
    expect(reports[0]).toContain(`${digests[1]}`);
    expect(await service.has(blake3Digest(whole))).toBe(false);
    await service.putMany(blobs);
    await service.putList(blake3Digest(whole), list);
    expect(equalBytes(await readBack(service, blake3Digest(whole)), whole)).toBe(true);
  });

  it("takes no harm from bytes behind what was committed", async () => {
    appendFileSync(store.packOf(), noise(10_000, 7));
    await using service = await store.open();
    const other = await putBlob(service, noise(50_000, 8));
    expect(equalBytes(await readBack(service, other), noise(50_000, 8))).toBe(true);
    expect(equalBytes(await readBack(service, digest), contents)).toBe(true);
  });

  it("is not mistaken for damaged when it cannot be read", async () => {
    rmSync(store.packOf());
    mkdirSync(store.packOf()); // reading a folder fails, whoever tries
    const { service, reports } = await store.openReporting();
    await using _service = service;
    await expect(readBack(service, digest)).rejects.toMatchObject({ code: "unavailable" });
    expect(reports).toEqual([]);
    expect(await service.has(digest)).toBe(true);
  });
});

describe("a list of chunks that was damaged in the index", () => {
  const contents = noise(1_500_000);
  const digest = blake3Digest(contents);

  /** Lists the first chunk as one byte longer than it is. */
  async function damage(): Promise<void> {
    await using service = await store.open();
    await putBlob(service, contents);
    const [first, ...others] = (await chunksOf(service, digest))!;
    const list = ChunkList.of([{ ...first!, size: first!.size + 1 }, ...others]).bytes;
    const index = new Sqlite(store.index);
    index.prepare("UPDATE lists SET chunks = ?").run(list);
    index.close();
  }

  it("is told once, and its blob counts as absent from then on, until it is put again", async () => {
    await damage();
    {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      const reading = service.read(digest, { offset: 1_000_000, length: 10 });
      await expect(reading).rejects.toMatchObject({ code: "data_loss" });
      expect(await service.has(digest)).toBe(false);
      expect(await service.read(digest)).toBeUndefined();
      expect(reports).toEqual([
        expect.stringContaining(`Cannot read blob ${digest}: its list of chunks is damaged`),
      ]);
    }
    await using service = await store.open();
    expect(await service.has(digest)).toBe(false);
    await putBlob(service, contents);
    const part = await service.read(digest, { offset: 1_000_000, length: 10 });
    expect(await collectBytes(part!)).toEqual(
      new Uint8Array(contents.subarray(1_000_000, 1_000_010)),
    );
    expect(equalBytes(await readBack(service, digest), contents)).toBe(true);
  });

  it("is told when the blob is read from its beginning, before a byte is in the wrong place", async () => {
    await damage();
    const { service, reports } = await store.openReporting();
    await using _service = service;
    await expect(readBack(service, digest)).rejects.toMatchObject({ code: "data_loss" });
    expect(await service.has(digest)).toBe(false);
    expect(reports).toHaveLength(1);
  });

  it("is not shown to those who fetch the chunks one by one", async () => {
    await damage();
    const { service, reports } = await store.openReporting();
    await using _service = service;
    await expect(chunksOf(service, digest)).rejects.toMatchObject({ code: "data_loss" });
    expect(await chunksOf(service, digest)).toBeUndefined();
    expect(reports).toHaveLength(1);
  });
});

describe("packs that the index does not know", () => {
  it("are never written over", async () => {
    const options = { maxPackSize: 300_000 };
    const known = noise(200_000, 1);
    {
      await using service = await store.open(options);
      await putBlob(service, known);
    }
    const index = readFileSync(store.index); // as a backup keeps it
    {
      await using service = await store.open(options);
      await putBlob(service, noise(200_000, 2));
    }
    writeFileSync(store.index, index);
    const unknown = readFileSync(store.packOf(2));
    {
      await using service = await store.open(options);
      await putBlob(service, noise(200_000, 3));
      expect(equalBytes(await readBack(service, blake3Digest(known)), known)).toBe(true);
    }
    expect(readFileSync(store.packOf(2)).equals(unknown)).toBe(true);
    expect(readdirSync(join(store.path, "packs"))).toHaveLength(3);
  });

  it("are not hidden by a new index when theirs is removed while the store is open", async () => {
    const digest = await (async () => {
      await using service = await store.open();
      return await putBlob(service, noise(200_000));
    })();
    {
      await using service = await store.open();
      rmSync(store.index);
      await expect(putBlob(service, Buffer.from("more"))).rejects.toMatchObject({
        code: "unavailable",
      });
    }
    await using service = await store.open({ onCorrupt: () => undefined });
    expect(equalBytes(await readBack(service, digest), noise(200_000))).toBe(true);
  });
});

describe("an index that cannot be used", () => {
  it.each([
    ["garbage", "data_loss", (file: string) => writeFileSync(file, noise(8192))],
    [
      "another kind of database",
      "invalid_argument",
      (file: string) => new Sqlite(file).exec("CREATE TABLE t (x)"),
    ],
    [
      "a newer version",
      "invalid_argument",
      (file: string) =>
        new Sqlite(file).exec(`PRAGMA application_id = ${0x54767842}; PRAGMA user_version = 9`),
    ],
  ])("is refused when it is %s", async (_, code, write) => {
    mkdirSync(store.path);
    write(store.index);
    await expect(store.open()).rejects.toMatchObject({
      code,
      message: expect.stringContaining("index.sqlite"),
    });
  });

  it.each([
    ["pack", "'x'"],
    ['"offset"', "-1"],
    ["stored_size", "1 << 40"],
    ["size", "1 << 40"],
  ])("is told when what it says of a chunk cannot be: %s = %s", async (column, value) => {
    await using service = await store.open({ onCorrupt: () => undefined });
    const digest = await putBlob(service, Buffer.from("contents"));
    const index = new Sqlite(store.index);
    index.exec(`UPDATE chunks SET ${column} = ${value}`);
    index.close();
    await expect(service.read(digest)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(`chunk ${digest} is damaged`),
    });
  });

  it("is waited for while another process writes, and others get their turn", async () => {
    await using service = await store.open();
    const other = new Sqlite(store.index);
    other.exec("BEGIN IMMEDIATE");
    let stored = false;
    const storing = putBlob(service, Buffer.from("waits")).then((digest) => {
      stored = true;
      return digest;
    });
    for (let turn = 0; turn < 20; turn++) await sleep(5);
    expect(stored).toBe(false);
    other.exec("COMMIT");
    other.close();
    expect(await service.has(await storing)).toBe(true);
  });
});

describe.skipIf(!canMount)(
  `a full disk${canMount ? "" : " (missing: permission to mount one)"}`,
  () => {
    beforeEach(() => {
      mkdirSync(store.path);
      mountSmallDisk(store.path, 3);
    });
    afterEach(() => {
      unmount(store.path);
    });

    it("is told, leaves nothing half stored, and does no harm to what fits", async () => {
      await using service = await store.open({ maxPackSize: 150_000 });
      const small = await putBlob(service, noise(100_000));
      const large = noise(4_000_000, 2);
      await expect(putBlob(service, large)).rejects.toMatchObject({ code: "resource_exhausted" });
      expect(await service.has(blake3Digest(large))).toBe(false);
      expect(equalBytes(await readBack(service, small), noise(100_000))).toBe(true);
      const other = await putBlob(service, noise(50_000, 3));
      expect(equalBytes(await readBack(service, other), noise(50_000, 3))).toBe(true);
    });

    it("leaves no pack of a commit that failed", async () => {
      await using service = await store.open({ maxPackSize: 100_000 });
      await putBlob(service, noise(100_000));
      const packs = readdirSync(join(store.path, "packs"));
      fillDisk(store.path);
      for (const seed of [2, 3, 4]) {
        const storing = putBlob(service, noise(100_000, seed));
        await expect(storing).rejects.toMatchObject({ code: "resource_exhausted" });
      }
      expect(readdirSync(join(store.path, "packs"))).toEqual(packs);
    });

    it("is no hindrance to opening a store that was closed, and to reading", async () => {
      const digest = await (async () => {
        await using service = await store.open();
        return await putBlob(service, noise(100_000));
      })();
      const ballast = fillDisk(store.path);
      for (let i = 0; i < 3; i++) {
        await using service = await store.open();
        expect(equalBytes(await readBack(service, digest), noise(100_000))).toBe(true);
        const storing = putBlob(service, noise(10_000, 2));
        await expect(storing).rejects.toMatchObject({ code: "resource_exhausted" });
      }
      rmSync(ballast);
      await using service = await store.open();
      expect(await service.has(await putBlob(service, noise(10_000, 2)))).toBe(true);
    });
  },
);
