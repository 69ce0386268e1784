import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { importPath } from "./import.ts";
import { ReferenceCandidates } from "./nix/reference-scanner.ts";
import { StorePath } from "./nix/store-path.ts";
import { MemoryPathInfoService } from "./pathinfoservice/memory.ts";

const services = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
  pathInfoService: new MemoryPathInfoService(),
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tvix-import-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("importPath", () => {
  it("takes names that begin with a dot, and gives the store paths of Nix 2.8", async () => {
    for (const path of [
      "ayzgk29gjpwbgrh3p9qdy7rgbxirqg62-.gitignore",
      "nkzzgfjfrahm5ay1m9mbkr0cmjkh7q8s-.src.tar.gz",
      "srs21ypii76gx5639rb14kk50m23rmjz-..a",
    ]) {
      const file = join(folder, path.slice(33));
      writeFileSync(file, "x\n");
      expect(`${(await importPath(file, services)).storePath}`).toBe(path);
    }
  });

  it.each([".-a", "..-", ".", ".."])("refuses the name %s, and stores nothing", async (name) => {
    writeFileSync(join(folder, "x"), "x\n");
    const pathInfoService = new MemoryPathInfoService();
    await expect(
      importPath(join(folder, "x"), { ...services, pathInfoService }, { name }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
    for await (const { storePath } of pathInfoService.list()) expect.unreachable(`${storePath}`);
  });
});

describe("importPath with references", () => {
  const absent = StorePath.parse(`${"0".repeat(32)}-absent`);

  it("finds them in the target of a symlink, and builds another store path for it", async () => {
    writeFileSync(join(folder, "file"), "contents");
    const { storePath } = await importPath(join(folder, "file"), services);
    symlinkSync(storePath.toAbsolutePath(), join(folder, "link"));
    const references = new ReferenceCandidates([storePath.hashPart, absent.hashPart]);
    const found = await importPath(join(folder, "link"), services, { references });
    const plain = await importPath(join(folder, "link"), services);
    expect(found.references.map(String)).toEqual([`${storePath}`]);
    expect(`${found.storePath}`).not.toBe(`${plain.storePath}`);
    expect(found.narSha256).toEqual(plain.narSha256);
  });

  it("refuses contents that refer to what is not registered, and registers nothing", async () => {
    const pathInfoService = new MemoryPathInfoService();
    writeFileSync(join(folder, "file"), `see ${absent}`);
    const references = new ReferenceCandidates([absent.hashPart]);
    await expect(
      importPath(join(folder, "file"), { ...services, pathInfoService }, { references }),
    ).rejects.toMatchObject({ code: "not_found", message: expect.stringContaining("000000") });
    for await (const { storePath } of pathInfoService.list()) expect.unreachable(`${storePath}`);
  });
});
