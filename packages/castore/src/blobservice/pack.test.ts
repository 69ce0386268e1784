import { fork } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { noise } from "../../test/noise.ts";
import { canMount, mountSmallDisk, unmount } from "../../test/small-disk.ts";
import { collectBytes, equalBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { PackBlobService, type PackOptions } from "./pack.ts";
import { putBlob } from "./put-blob.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "pack-"));
  path = join(folder, "blobs");
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = (options: Partial<PackOptions> = {}) => PackBlobService.open({ path, ...options });
const packOf = (pack = 1) => join(path, "packs", `${pack}`.padStart(8, "0").concat(".pack"));

async function readBack(service: PackBlobService, digest: B3Digest): Promise<Uint8Array> {
  return await collectBytes((await service.read(digest))!);
}

/** Opens a service that collects what it reports as damaged. */
async function openReporting() {
  const reports: string[] = [];
  const service = await open({ onCorrupt: (message) => reports.push(message) });
  return { service, reports };
}

describe("PackBlobService", () => {
  it("keeps blobs from one opening to the next", async () => {
    const large = noise(3_000_000);
    const digests: B3Digest[] = [];
    {
      await using service = await open();
      digests.push(await putBlob(service, Buffer.from("small")), await putBlob(service, large));
    }
    await using service = await open();
    expect(Buffer.from(await readBack(service, digests[0]!)).toString()).toBe("small");
    expect(equalBytes(await readBack(service, digests[1]!), large)).toBe(true);
  });

  it("compresses what can be compressed, and leaves the rest as it is", async () => {
    await using service = await open();
    await putBlob(service, Buffer.alloc(400_000, "compressible "));
    expect(statSync(packOf()).size).toBeLessThan(10_000);
    await putBlob(service, noise(300_000));
    expect(statSync(packOf()).size).toBeGreaterThan(300_000);
  });

  it("adds nothing for bytes that it has", async () => {
    await using service = await open();
    const contents = noise(2_000_000);
    await putBlob(service, contents);
    const { size } = statSync(packOf());
    await putBlob(service, contents);
    await putBlob(service, contents.subarray(0, 100)); // new, one chunk
    expect(statSync(packOf()).size).toBe(size + 52 + 100);
  });

  it("takes more than is in flight at a time from buffers that are freed after each write", async () => {
    const contents = noise(40_000_000);
    await using service = await open();
    await using writer = service.openWriter();
    for (let at = 0; at < contents.length; at += 1_000_000) {
      const lent = new Uint8Array(contents.subarray(at, at + 1_000_000));
      await writer.write(lent);
      lent.buffer.transfer(0);
    }
    expect((await writer.close()).equals(B3Digest.of(contents))).toBe(true);
  });

  it("begins a new pack when one is full", async () => {
    await using service = await open({ maxPackSize: 300_000 });
    const blobs = [1, 2, 3, 4].map((seed) => noise(200_000, seed));
    const digests = [];
    for (const blob of blobs) digests.push(await putBlob(service, blob));
    expect(readdirSync(join(path, "packs"))).toEqual(
      [1, 2, 3, 4].map((pack) => `0000000${pack}.pack`),
    );
    for (const [i, digest] of digests.entries()) {
      expect(equalBytes(await readBack(service, digest), blobs[i]!)).toBe(true);
    }
  });

  it("stores chunks of every size that is offered, of which some cannot be compressed", async () => {
    for (const averageChunkSize of [2 ** 14, 2 ** 22]) {
      await using service = await open({ averageChunkSize });
      const dense = noise(9_000_000, averageChunkSize);
      const sparse = Buffer.alloc(9_000_000, `of ${averageChunkSize} bytes `);
      const digests = await Promise.all([putBlob(service, dense), putBlob(service, sparse)]);
      expect(equalBytes(await readBack(service, digests[0]!), dense)).toBe(true);
      expect(equalBytes(await readBack(service, digests[1]!), sparse)).toBe(true);
    }
  });

  it("gives what was put in one batch, dense and sparse blobs in turn, each as it was", async () => {
    await using service = await open();
    const blobs = Array.from({ length: 300 }, (_, i) =>
      i % 2 === 0 ? noise(i * 41, i) : Buffer.alloc(i * 97, `blob ${i} `),
    );
    const digests = await service.putMany(blobs);
    const wanted = digests.map((digest, i) => ({ digest, size: blobs[i]!.length }));
    using read = await service.readMany(wanted.toReversed());
    read.contents.toReversed().forEach((contents, i) => {
      expect(contents !== undefined && equalBytes(contents, blobs[i]!)).toBe(true);
    });
  });

  it("uses the chunks of a writer that was dropped, but does not show them", async () => {
    const contents = noise(4_000_000);
    {
      await using service = await open();
      await using writer = service.openWriter();
      await writer.write(contents);
    }
    const { size } = statSync(packOf());
    expect(size).toBeGreaterThan(3_000_000);
    await using service = await open();
    const digest = B3Digest.of(contents);
    expect(await service.has(digest)).toBe(false);
    await putBlob(service, contents);
    expect(statSync(packOf()).size).toBeLessThan(size + 1_000_000);
    for (const chunk of (await service.chunks(digest))!) {
      expect(await service.has(chunk.digest)).toBe(true);
    }
  });

  it("takes the same and other blobs from several services on one folder", async () => {
    await using one = await open();
    await using other = await open();
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
  const digest = B3Digest.of(contents);

  beforeEach(async () => {
    await using service = await open();
    await putBlob(service, contents);
  });

  it.each([
    [
      "a byte that flipped",
      () => {
        const bytes = readFileSync(packOf());
        bytes[700_000] = bytes[700_000]! ^ 1;
        writeFileSync(packOf(), bytes);
      },
    ],
    ["an end that is missing", () => truncateSync(packOf(), 900_000)],
    ["a file that is missing", () => rmSync(packOf())],
  ])("counts as absent where it has %s, until the blob is put again", async (_, damage) => {
    damage();
    const { service, reports } = await openReporting();
    await using _service = service;
    await expect(readBack(service, digest)).rejects.toMatchObject({ code: "data_loss" });
    expect(reports[0]).toContain(packOf());
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
    const { service, reports } = await openReporting();
    await using _service = service;
    const { size } = statSync(packOf());
    const digests = await service.putMany(blobs);
    const bytes = readFileSync(packOf());
    bytes[size + 52 + 1000 + 52 + 7]! ^= 1; // in the second of them
    writeFileSync(packOf(), bytes);
    const wanted = digests.map((digest) => ({ digest, size: 1000 }));
    using read = await service.readMany(wanted);
    const found = read.contents.map((contents, i) => contents && equalBytes(contents, blobs[i]!));
    expect(found).toEqual([true, undefined, true, true]);
    expect(reports[0]).toContain(`${digests[1]}`);
    expect(await service.hasMany(digests)).toEqual([true, false, true, true]);
    await service.putMany(blobs);
    expect(equalBytes(await readBack(service, digests[1]!), blobs[1]!)).toBe(true);
  });

  it("takes no harm from bytes behind what was committed", async () => {
    appendFileSync(packOf(), noise(10_000, 7));
    await using service = await open();
    const other = await putBlob(service, noise(50_000, 8));
    expect(equalBytes(await readBack(service, other), noise(50_000, 8))).toBe(true);
    expect(equalBytes(await readBack(service, digest), contents)).toBe(true);
  });

  it("is not mistaken for damaged when it cannot be read", async () => {
    rmSync(packOf());
    mkdirSync(packOf()); // reading a folder fails, whoever tries
    const { service, reports } = await openReporting();
    await using _service = service;
    await expect(readBack(service, digest)).rejects.toMatchObject({ code: "unavailable" });
    expect(reports).toEqual([]);
    expect(await service.has(digest)).toBe(true);
  });
});

describe("an index that is lost", () => {
  const LARGE = noise(3_000_000, 7);
  const contents = [LARGE, Buffer.from("small"), Buffer.alloc(0), noise(400_000, 8)];
  const lose = () => rmSync(join(path, "index.sqlite"));

  async function store(options: Partial<PackOptions> = {}): Promise<B3Digest[]> {
    await using service = await open(options);
    const digests: B3Digest[] = [];
    for (const data of contents) digests.push(await putBlob(service, data));
    return digests;
  }

  async function expectAll(service: PackBlobService, digests: readonly B3Digest[]) {
    for (const [i, digest] of digests.entries()) {
      expect(equalBytes(await readBack(service, digest), contents[i]!)).toBe(true);
    }
  }

  it.each([
    ["one pack", {}],
    ["many packs", { maxPackSize: 500_000 }],
  ])("is made anew from %s, and written to", async (_, options) => {
    const digests = await store(options);
    lose();
    {
      const { service, reports } = await openReporting();
      await using _service = service;
      await expectAll(service, digests);
      expect(await service.chunks(digests[0]!)).not.toHaveLength(0);
      expect(reports).toEqual([expect.stringContaining("a new one is made from the packs")]);
      await putBlob(service, Buffer.from("more"));
    }
    await using service = await open();
    await expectAll(service, digests);
    expect(await service.has(B3Digest.of(Buffer.from("more")))).toBe(true);
    expect(readdirSync(path).filter((name) => name.includes("rebuild"))).toEqual([]);
  });

  it("is made once by several who open the store", async () => {
    const digests = await store();
    lose();
    const reports: string[] = [];
    const onCorrupt = (message: string) => void reports.push(message);
    const services = await Promise.all(Array.from({ length: 4 }, () => open({ onCorrupt })));
    for (const service of services) await expectAll(service, digests);
    expect(reports).toHaveLength(1);
    for (const service of services) await service[Symbol.asyncDispose]();
  });

  it("is made of what is whole in a pack that breaks off, which is then overwritten", async () => {
    const digests = await store();
    lose();
    truncateSync(packOf(), statSync(packOf()).size - 1000);
    {
      const { service, reports } = await openReporting();
      await using _service = service;
      await expectAll(service, digests.slice(0, 3));
      expect(await service.has(digests[3]!)).toBe(false);
      expect(reports.join()).toContain("is damaged at");
      await putBlob(service, contents[3]!);
    }
    lose();
    await using service = await open({ onCorrupt: () => undefined });
    await expectAll(service, digests);
  });

  it("is made of what is whole before and behind a flipped bit", async () => {
    const digests = await store();
    lose();
    const bytes = readFileSync(packOf());
    bytes[100_000]! ^= 1; // in a chunk of the first blob
    writeFileSync(packOf(), bytes);
    const { service, reports } = await openReporting();
    await using _service = service;
    expect(await service.has(digests[0]!)).toBe(false);
    expect(equalBytes(await readBack(service, digests[1]!), contents[1]!)).toBe(true);
    expect(equalBytes(await readBack(service, digests[3]!), contents[3]!)).toBe(true);
    expect(reports.join()).toMatch(/damaged at.*is left out: chunk/s);
    await putBlob(service, contents[0]!);
    await expectAll(service, digests);
  });

  it("is not mixed up with what was left of the one that is gone", async () => {
    const digests = await store();
    lose();
    writeFileSync(join(path, "index.sqlite-wal"), noise(40_000));
    await using service = await open({ onCorrupt: () => undefined });
    await expectAll(service, digests);
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
    mkdirSync(path);
    write(join(path, "index.sqlite"));
    await expect(open()).rejects.toMatchObject({
      code,
      message: expect.stringContaining("index.sqlite"),
    });
  });

  it("is waited for while another process writes, and others get their turn", async () => {
    await using service = await open();
    const other = new Sqlite(join(path, "index.sqlite"));
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
      mkdirSync(path);
      mountSmallDisk(path, 3);
    });
    afterEach(() => {
      unmount(path);
    });

    it("is told, leaves nothing half stored, and does no harm to what fits", async () => {
      await using service = await open();
      const small = await putBlob(service, noise(100_000));
      const large = noise(4_000_000, 2);
      await expect(putBlob(service, large)).rejects.toMatchObject({ code: "resource_exhausted" });
      expect(await service.has(B3Digest.of(large))).toBe(false);
      expect(equalBytes(await readBack(service, small), noise(100_000))).toBe(true);
      const other = await putBlob(service, noise(50_000, 3));
      expect(equalBytes(await readBack(service, other), noise(50_000, 3))).toBe(true);
    });
  },
);

describe("a process that is killed", () => {
  const writer = fileURLToPath(new URL("../../test/write-blobs.ts", import.meta.url));

  it("leaves every blob whole whose writer had closed, and shows no other", async () => {
    const finished: string[] = [];
    for (let round = 0; round < 8; round++) {
      const child = fork(writer, [path, `${round}`], {
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
      child.on("message", (hex: string) => finished.push(hex));
      const before = finished.length;
      while (finished.length < before + 3 + round * 5) await sleep(2);
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("close", resolve));
    }
    await using service = await open();
    for (const hex of finished) {
      const digest = B3Digest.fromBytes(Buffer.from(hex, "hex"));
      expect(B3Digest.of(await readBack(service, digest)).equals(digest)).toBe(true);
    }
    const index = new Sqlite(join(path, "index.sqlite"));
    for (const { digest } of index
      .prepare<[], { digest: Buffer }>("SELECT digest FROM blobs")
      .all()) {
      await readBack(service, B3Digest.fromBytes(digest));
    }
    index.close();
    expect(finished.length).toBeGreaterThan(100);
  });
});
