import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { B3Digest } from "@tvix/castore";
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

function pathInfo(i: number): PathInfo {
  const hashPart = new Uint8Array(20).fill(i);
  return {
    storePath: StorePath.from(hashPart, `path-${i}`),
    node: { type: "file", digest: B3Digest.of(hashPart), size: 20n, executable: false },
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
    ["none", Uint8Array.of(0xff), "no valid message"],
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
