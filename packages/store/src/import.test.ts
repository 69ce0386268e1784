import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { importPath } from "./import.ts";
import { ReferenceCandidates } from "./nix/reference-scanner.ts";
import { StorePath } from "./nix/store-path.ts";
import { MemoryPathInfoService } from "./pathinfoservice/memory.ts";

describe("importPath with references", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tvix-import-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const services = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
    pathInfoService: new MemoryPathInfoService(),
  };
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
