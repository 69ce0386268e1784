import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { importArchive, importPath, MemoryPathInfoService, ReferenceCandidates } from "@tvix/store";
import { afterEach, beforeEach, expect, it } from "vitest";
import { describeWithTools } from "../src/index.ts";

describeWithTools("importArchive of a store", ["tar"], (tar) => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tvix-import-"));
    mkdirSync(join(folder, "source/sub"), { recursive: true });
    writeFileSync(join(folder, "source/sub/file"), "contents");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const services = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
    pathInfoService: new MemoryPathInfoService(),
  };
  const archive = (): string => {
    const at = join(folder, "archive.tar");
    execFileSync(tar, ["-C", join(folder, "source"), "-cf", at, "sub"]);
    return at;
  };

  it("registers what an import of the folder registers", async () => {
    const expected = await importPath(join(folder, "source"), services);
    const found = await importArchive(archive(), services, { name: "source" });
    expect(found).toEqual(expected);
  });

  it("finds references in files, and in where symlinks lead", async () => {
    const [one, two] = ["one", "two"].map((name) => {
      writeFileSync(join(folder, name), name);
      return importPath(join(folder, name), services);
    });
    const dependencies = [(await one!).storePath, (await two!).storePath];
    writeFileSync(join(folder, "source/sub/file"), `see ${dependencies[0]}`);
    symlinkSync(`${dependencies[1]!.toAbsolutePath()}`, join(folder, "source/sub/link"));
    const references = new ReferenceCandidates(dependencies.map(({ hashPart }) => hashPart));
    const expected = await importPath(join(folder, "source"), services, { references });
    const found = await importArchive(archive(), services, { name: "source", references });
    expect(found.references.map(String).sort()).toEqual(dependencies.map(String).sort());
    expect(found).toEqual(expected);
  });

  it("refuses a name that a store path cannot have, before anything is read", async () => {
    const untouched = async function* () {
      yield expect.unreachable();
    };
    await expect(
      importArchive(untouched(), services, { name: "with space" }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("registers nothing of an archive that breaks off", async () => {
    const pathInfoService = new MemoryPathInfoService();
    const broken = async function* () {
      yield Buffer.alloc(100);
    };
    await expect(
      importArchive(broken(), { ...services, pathInfoService }, { name: "broken" }),
    ).rejects.toMatchObject({ code: "data_loss" });
    for await (const { storePath } of pathInfoService.list()) expect.unreachable(`${storePath}`);
  });
});
