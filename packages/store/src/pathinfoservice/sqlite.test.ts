import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { blake3Digest } from "@tvix/castore";
import { openDatabase } from "@tvix/castore/sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodePathInfo } from "../convert.ts";
import { StorePath } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { SqlitePathInfoService } from "./sqlite.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "path-infos-"));
  path = join(folder, "path-infos.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

function pathInfo(i: number, hashPart = new Uint8Array(20).fill(i)): PathInfo {
  return {
    storePath: StorePath.from(hashPart, `path-${i}`),
    node: { type: "file", digest: blake3Digest(hashPart), size: 20n, executable: false },
    references: [],
    narSize: 1n,
    narSha256: new Uint8Array(32),
    signatures: [],
  };
}

const FORMAT = { applicationId: 0x54767850, version: 1, schema: "" };

describe("SqlitePathInfoService", () => {
  it("keeps PathInfos from one opening to the next", async () => {
    {
      await using service = await SqlitePathInfoService.open({ path });
      await service.put(pathInfo(1));
    }
    await using service = await SqlitePathInfoService.open({ path });
    expect((await service.get(new Uint8Array(20).fill(1)))?.storePath.name).toBe("path-1");
  });

  it.each([
    ["that of another store path", encodePathInfo(pathInfo(9)), "path-9"],
    ["none", Uint8Array.of(0xff), "expected a valid message"],
  ])("counts a row as absent that holds %s, until it is put again", async (_, data, reason) => {
    const reports: string[] = [];
    await using service = await SqlitePathInfoService.open({
      path,
      onCorrupt: (message) => reports.push(message),
    });
    await service.put(pathInfo(1));
    await service.put(pathInfo(2));
    const hashPart = pathInfo(1).storePath.hashPart;
    const damage = async () => {
      const database = await openDatabase(path, FORMAT);
      database.prepare("UPDATE path_infos SET data = ? WHERE hash_part = ?").run(data, hashPart);
      database.close();
    };
    await damage();
    expect(await service.get(hashPart)).toBeUndefined();
    expect(reports).toEqual([expect.stringContaining(reason)]);
    await service.put(pathInfo(1));
    expect(await service.get(hashPart)).toBeDefined();

    await damage();
    const listed = [];
    for await (const { storePath } of service.list()) listed.push(storePath.name);
    expect(listed).toEqual(["path-2"]);
    expect(reports.length).toBe(2);
  });

  it("lists more than it reads at a time, ordered by hash part, each once", async () => {
    const pathInfos = Array.from({ length: 1500 }, (_, i) => {
      return pathInfo(i, createHash("sha1").update(`${i}`).digest());
    });
    const inOrder = pathInfos
      .map(({ storePath }) => Buffer.from(storePath.hashPart).toString("hex"))
      .sort();
    await using service = await SqlitePathInfoService.open({ path });
    await Promise.all(pathInfos.map((pathInfo) => service.put(pathInfo)));
    const listed = [];
    for await (const { storePath } of service.list()) {
      listed.push(Buffer.from(storePath.hashPart).toString("hex"));
    }
    expect(listed).toEqual(inOrder);
  });

  it("goes on with its listing past a page of damaged rows", async () => {
    const reports: string[] = [];
    await using service = await SqlitePathInfoService.open({
      path,
      onCorrupt: (message) => reports.push(message),
    });
    const pathInfos = Array.from({ length: 1200 }, (_, i) => {
      const hashPart = Buffer.alloc(20);
      hashPart.writeUInt32BE(i);
      return pathInfo(i, hashPart);
    });
    await Promise.all(pathInfos.map((pathInfo) => service.put(pathInfo)));
    const database = await openDatabase(path, FORMAT);
    const damaged = pathInfos[600]!.storePath.hashPart;
    database
      .prepare("UPDATE path_infos SET data = ? WHERE hash_part < ?")
      .run(Uint8Array.of(0xff), damaged);
    database.close();
    const listed = [];
    for await (const { storePath } of service.list()) listed.push(storePath.name);
    expect(listed).toEqual(pathInfos.slice(600).map(({ storePath }) => storePath.name));
    expect(reports.length).toBe(600);
  });

  it("stops a listing when it is cancelled, within a page and between pages", async () => {
    await using service = await SqlitePathInfoService.open({ path });
    const pathInfos = Array.from({ length: 501 }, (_, i) => {
      return pathInfo(i, createHash("sha1").update(`${i}`).digest());
    });
    await Promise.all(pathInfos.map((pathInfo) => service.put(pathInfo)));
    const reason = new Error("enough");
    for (const cancelAfter of [1, 500]) {
      const controller = new AbortController();
      let listed = 0;
      const listing = async () => {
        for await (const _ of service.list({ signal: controller.signal })) {
          listed += 1;
          if (listed === cancelAfter) controller.abort(reason);
        }
      };
      await expect(listing()).rejects.toBe(reason);
      expect(listed).toBe(cancelAfter);
    }
  });

  it("can be cancelled while a PathInfo waits for another process to finish writing", async () => {
    await using service = await SqlitePathInfoService.open({ path });
    const other = await openDatabase(path, FORMAT);
    other.exec("BEGIN IMMEDIATE");
    const controller = new AbortController();
    const reason = new Error("enough");
    const storing = service.put(pathInfo(1), { signal: controller.signal });
    setImmediate(() => controller.abort(reason));
    // A put that cannot be cancelled would be stored once the lock is free.
    setTimeout(() => other.exec("COMMIT"), 300);
    await expect(storing).rejects.toBe(reason);
    while (other.inTransaction) await sleep(5);
    await service.put(pathInfo(2));
    expect(await service.get(pathInfo(1).storePath.hashPart)).toBeUndefined();
    other.close();
  });

  it("refuses the database of directories, and a file that is none", async () => {
    (
      await openDatabase(path, {
        applicationId: 0x54767844,
        version: 1,
        schema: "CREATE TABLE t(x)",
      })
    ).close();
    await expect(SqlitePathInfoService.open({ path })).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("application id"),
    });
    writeFileSync(path, "no database ".repeat(1000));
    await expect(SqlitePathInfoService.open({ path })).rejects.toMatchObject({ code: "data_loss" });
  });
});
