import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { chmod, link, mkdir, open, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  importArchive,
  importPath,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
} from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { describeWithTools, readTreeSpecs, seededBytes, writeTree } from "../src/index.ts";

let folder: string;
let source: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "import-archive-"));
  source = join(folder, "source");
  await mkdir(source);
});
afterEach(() => rmSync(folder, { recursive: true }));

const services = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
};

/** Expects of an archive of `source` what an import of it gives. */
async function expectSource(archive: string): Promise<void> {
  const expected = await importPath(source, services);
  expect(await importArchive(archive, services)).toEqual<Node>(expected);
}

describeWithTools("importArchive of what GNU tar writes", ["tar"], (tar) => {
  const archive = (...options: string[]): string => {
    const at = join(folder, "archive");
    execFileSync(tar, ["-C", source, ...options, "-cf", at, "."], { stdio: "pipe" });
    return at;
  };

  it.each(readTreeSpecs().map((spec) => [spec.tree, spec] as const))(
    "gives tree %s the root that an import of it has",
    async (_, spec) => {
      await writeTree(spec, join(source, "tree"));
      for (const format of ["gnu", "pax"]) await expectSource(archive(`--format=${format}`));
    },
  );

  it.each(["v7", "oldgnu", "gnu", "ustar", "pax"])(
    "is the source in the format %s",
    async (format) => {
      await mkdir(join(source, "folder/empty"), { recursive: true });
      await writeFile(join(source, "folder/file"), "contents");
      await writeFile(Buffer.from(`${source}/\xff\xfe`, "latin1"), "a name that is not UTF-8");
      await writeFile(join(source, "large"), seededBytes("large", 3_000_000));
      await symlink("folder/file", join(source, "link"));
      await link(join(source, "folder/file"), join(source, "hard"));
      await writeFile(join(source, "tool"), "#!/bin/sh\n");
      await chmod(join(source, "tool"), 0o755);
      await expectSource(archive(`--format=${format}`));
    },
  );

  it.each(["gnu", "pax"])("has names and targets of any length (%s)", async (format) => {
    const deep = `${"d".repeat(90)}/${"e".repeat(255)}/${"f".repeat(255)}`;
    await mkdir(join(source, deep), { recursive: true });
    await writeFile(join(source, deep, "g".repeat(255)), "deep");
    await writeFile(Buffer.from(`${source}/${"\xe9".repeat(200)}`, "latin1"), "long, not UTF-8");
    await link(join(source, deep, "g".repeat(255)), join(source, "hard"));
    await symlink("target/".repeat(300), join(source, "link"));
    await expectSource(archive(`--format=${format}`));
  });

  it.each([
    ["gnu", ""],
    ["oldgnu", ""],
    ["pax", "0.0"],
    ["pax", "0.1"],
    ["pax", "1.0"],
  ])("has sparse files (%s %s)", async (format, version) => {
    await writeFile(join(source, "hole"), "");
    truncateSync(join(source, "hole"), 300_000);
    await writeFile(join(source, "begins"), "data");
    truncateSync(join(source, "begins"), 1_000_000);
    const many = await open(
      join(source, "a sparse file with a name that is long enough".repeat(4)),
      "w",
    );
    for (let i = 0; i < 60; i++) await many.write(seededBytes(`${i}`, 3000), 0, 3000, i * 131_072);
    await many.close();
    const options = version === "" ? [] : [`--sparse-version=${version}`];
    await expectSource(
      archive("--sparse", "--hole-detection=raw", `--format=${format}`, ...options),
    );
  });

  it("is the source when it is empty, or ends a record of any length", async () => {
    await expectSource(archive());
    await expectSource(archive("--blocking-factor=1"));
    await expectSource(archive("--label=the name of the archive"));
  });

  it("has what was appended last", async () => {
    writeFileSync(join(source, "file"), "before");
    writeFileSync(join(source, "other"), "stays");
    const at = archive();
    writeFileSync(join(source, "file"), "after");
    execFileSync(tar, ["-C", source, "-rf", at, "./file"]);
    await expectSource(at);
  });
});

describe("importArchive of what is compressed", () => {
  for (const [program, option] of [
    ["gzip", "-z"],
    ["xz", "-J"],
    ["zstd", "--zstd"],
    ["bzip2", "-j"],
  ] as const) {
    describeWithTools(`by ${program}`, ["tar", program], (tar) => {
      it("is the source, and nothing when it breaks off", async () => {
        await writeFile(join(source, "file"), seededBytes("file", 500_000));
        await writeFile(join(source, "text"), "text ".repeat(100_000));
        const at = join(folder, "archive");
        execFileSync(tar, ["-C", source, option, "-cf", at, "."]);
        await expectSource(at);
        truncateSync(at, 400_000);
        await expect(importArchive(at, services)).rejects.toMatchObject({ code: "data_loss" });
      });
    });
  }
});

describeWithTools("importArchive of what Python writes", ["python3"], (python) => {
  const WRITE = `
import sys, tarfile
format = getattr(tarfile, sys.argv[3] + "_FORMAT")
with tarfile.open(sys.argv[2], "w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
    archive.add(sys.argv[1], ".")
`;

  it.each(["GNU", "PAX"])("is the source in the format %s", async (format) => {
    await mkdir(join(source, "folder"));
    await writeFile(join(source, "folder", "n".repeat(200)), seededBytes("file", 200_000));
    await link(join(source, "folder", "n".repeat(200)), join(source, "hard"));
    await writeFile(Buffer.from(`${source}/\xff\xfe`, "latin1"), "a name that is not UTF-8");
    await writeFile(join(source, "\u00fcber"), "a name that is");
    await symlink("t".repeat(200), join(source, "link"));
    const at = join(folder, "archive");
    execFileSync(python, ["-c", WRITE, source, at, format]);
    await expectSource(at);
  });
});
