import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { PackStore, readBack } from "../../../test/pack-store.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { putBlob } from "../put-blob.ts";

const store = new PackStore();

/** Turns the index of the store into one of version 1, as it was written before lists had rows of their own. */
function makeFirstVersion(): void {
  const index = new Sqlite(store.index);
  const rows = index
    .prepare<[], [Buffer, Buffer]>("SELECT digest, chunks FROM lists ORDER BY digest, first")
    .raw()
    .all();
  const lists = Map.groupBy(rows, ([digest]) => digest.toString("hex"));
  index.exec("DROP TABLE lists; DROP TABLE blobs; ALTER TABLE chunks DROP COLUMN checksum");
  index.exec("CREATE TABLE blobs (digest BLOB PRIMARY KEY, chunks BLOB NOT NULL) WITHOUT ROWID");
  const add = index.prepare("INSERT INTO blobs VALUES (?, ?)");
  for (const [hex, parts] of lists) {
    add.run(Buffer.from(hex, "hex"), Buffer.concat(parts.map(([, chunks]) => chunks)));
  }
  add.run(blake3Digest(Buffer.from("damaged")).bytes, Buffer.from("no list of chunks"));
  index.pragma("user_version = 1");
  index.close();
}

describe("an index of version 1", () => {
  it("is upgraded when it is opened, without the lists that are damaged", async () => {
    const contents = [noise(2_000_000), noise(3_000_000), noise(100)];
    {
      await using service = await store.open();
      for (const blob of contents) await putBlob(service, blob.slice());
    }
    makeFirstVersion();
    for (let i = 0; i < 2; i++) {
      await using service = await store.open();
      for (const blob of contents) {
        const found = await readBack(service, blake3Digest(blob));
        expect(Buffer.compare(found, blob)).toBe(0);
      }
      expect(await service.has(blake3Digest(Buffer.from("damaged")))).toBe(false);
    }
    const index = new Sqlite(store.index, { readonly: true });
    expect(index.pragma("user_version", { simple: true })).toBe(3);
    expect(index.prepare("SELECT count(*) FROM blobs").pluck().get()).toBe(2);
    index.close();
  });
});
