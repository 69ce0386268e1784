import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { chmod, link, mkdir, open, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  collectBytes,
  decompress,
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

/** Expects the same result from an archive of `source` as from importing `source`. */
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

  it.each(["-z", "-j", "-J", "--zstd", "--format=pax"])(
    "takes an archive that ends without zeros, and refuses one that ends elsewhere (%s)",
    async (option) => {
      await writeFile(join(source, "file"), seededBytes("file", 1000));
      const bare = readFileSync(archive("--blocking-factor=1")).subarray(0, -1024);
      const pack = (data: Uint8Array) => {
        const at = join(folder, "packed");
        writeFileSync(at, data);
        const program = { "-z": "gzip", "-j": "bzip2", "-J": "xz", "--zstd": "zstd" }[option];
        if (program !== undefined) {
          writeFileSync(at, execFileSync(program, ["-c"], { input: data, maxBuffer: 1e8 }));
        }
        return at;
      };
      for (const [data, isTaken] of [
        [bare, true],
        [bare.subarray(0, -512), false],
        [bare.subarray(0, -600), false],
      ] as const) {
        const at = pack(data);
        const unpacked = spawnSync(tar, ["-tf", at]);
        expect(unpacked.status === 0).toBe(isTaken);
        if (isTaken) await expectSource(at);
        else await expect(importArchive(at, services)).rejects.toThrow("found the end");
      }
    },
  );

  it("takes a first member / for the root", async () => {
    await writeFile(join(source, "file"), "contents");
    const at = join(folder, "archive");
    const rename = "--transform=s,^[.]$,/,";
    execFileSync(tar, ["-P", "-C", source, rename, "-cf", at, "."], { stdio: "pipe" });
    expect(execFileSync(tar, ["-P", "-tf", at], { encoding: "utf8" }).split("\n")[0]).toBe("/");
    await expectSource(at);
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

/** Programs that compress, and ways for them to do so. */
const COMPRESSORS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  gzip: [[]],
  xz: [
    [],
    ["--check=none"],
    ["--check=crc32"],
    ["--check=sha256"],
    ["--block-size=65536", "--threads=2"],
    ["--x86", "--lzma2"],
    ["--arm", "--lzma2"],
    ["--powerpc", "--lzma2"],
    ["--delta=dist=4", "--x86", "--lzma2=dict=1MiB"],
  ],
  zstd: [[], ["--long=27"], ["--no-check", "-19"]],
  pzstd: [["-p2"]],
  bzip2: [[], ["-1"]],
};

describe("importArchive of what is compressed", () => {
  for (const [program, ways] of Object.entries(COMPRESSORS)) {
    describeWithTools(`by ${program}`, ["tar", program], (tar, compressor) => {
      const written = async (): Promise<Buffer> => {
        await writeFile(join(source, "file"), seededBytes("file", 500_000));
        await writeFile(join(source, "text"), "text ".repeat(100_000));
        return execFileSync(tar, ["-C", source, "-c", "."], { maxBuffer: 1e8 });
      };
      const compressed = (input: Uint8Array, options: readonly string[] = []): Buffer =>
        execFileSync(compressor, ["-c", ...options], { input, maxBuffer: 1e8, stdio: "pipe" });

      it.each(ways.map((options) => [options.join(" ") || "as usual", options] as const))(
        "is the source (%s)",
        async (_, options) => {
          writeFileSync(join(folder, "archive"), compressed(await written(), options));
          await expectSource(join(folder, "archive"));
        },
      );

      it("is the source in several parts, and nothing when it breaks off", async () => {
        const archive = await written();
        const parts = [archive.subarray(0, 200_001), archive.subarray(200_001)];
        const whole = Buffer.concat(parts.map((part) => compressed(part)));
        writeFileSync(join(folder, "archive"), whole);
        await expectSource(join(folder, "archive"));
        truncateSync(join(folder, "archive"), 400_000);
        const broken = importArchive(join(folder, "archive"), services);
        await expect(broken).rejects.toMatchObject({ code: "data_loss" });
      });
    });
  }

  describeWithTools("by bzip2, whatever is in it,", ["bzip2"], (bzip2) => {
    const inputs: readonly (readonly [string, Buffer])[] = [
      ["nothing", Buffer.alloc(0)],
      ["one byte", Buffer.from("a")],
      ["runs of every length", Buffer.concat([...runs()])],
      ["runs that end a block", Buffer.alloc(900_000 - 19 + 255, "b")],
      ["zeros", Buffer.alloc(5_000_000)],
      ["every byte", Buffer.from(Array.from({ length: 70_000 }, (_, i) => i % 256))],
      ["what cannot be compressed", Buffer.from(seededBytes("noise", 2_500_000))],
      ["text", readFileSync(new URL(import.meta.url))],
      ["random bits", bits()],
    ];

    function* runs(): Generator<Buffer> {
      for (let length = 1; length < 600; length++) {
        yield Buffer.alloc(length, 97 + (length % 2));
        if (length % 7 === 0) yield Buffer.alloc(length % 5, 4);
      }
    }

    function bits(): Buffer {
      return Buffer.from(seededBytes("bits", 300_000)).map((byte) => byte & 1) as Buffer;
    }

    it.each(inputs)("is what it was (%s)", async (_, input) => {
      for (const level of ["-1", "-9"]) {
        const data = execFileSync(bzip2, ["-c", level], { input, maxBuffer: 1e8 });
        for (const size of [100_003, 1e9]) {
          const pieces = async function* () {
            for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
          };
          const found = await collectBytes(decompress(pieces(), "bzip2"));
          expect(Buffer.compare(found, input)).toBe(0);
        }
      }
    });
  });

  describeWithTools("by xz, with zeros between and behind the parts", ["tar", "xz"], (tar, xz) => {
    it("is the source", async () => {
      await writeFile(join(source, "file"), seededBytes("file", 300_000));
      const archive = execFileSync(tar, ["-C", source, "-c", "."]);
      const [first, second] = [archive.subarray(0, 9999), archive.subarray(9999)].map((input) =>
        execFileSync(xz, ["-c"], { input }),
      );
      const padded = Buffer.concat([first!, Buffer.alloc(4), second!, Buffer.alloc(8)]);
      writeFileSync(join(folder, "archive"), padded);
      await expectSource(join(folder, "archive"));
    });
  });
});

describeWithTools("importArchive of what libarchive writes", ["bsdtar"], (bsdtar) => {
  it.each(["v7", "ustar", "pax", "gnutar"])("is the source in the format %s", async (format) => {
    await mkdir(join(source, "folder/empty"), { recursive: true });
    await writeFile(join(source, "folder/file"), seededBytes("file", 200_000));
    await writeFile(join(source, "name that is long enough".repeat(3)), "contents");
    await symlink("folder/file", join(source, "link"));
    await link(join(source, "folder/file"), join(source, "hard"));
    await writeFile(join(source, "tool"), "#!/bin/sh\n");
    await chmod(join(source, "tool"), 0o755);
    if (format === "pax") {
      await writeFile(Buffer.from(`${source}/\xff\xfe`, "latin1"), "a name that is not UTF-8");
      const sparse = await open(join(source, "sparse"), "w");
      await sparse.write(seededBytes("sparse", 5000), 0, 5000, 1_000_000);
      await sparse.truncate(3_000_000);
      await sparse.close();
    }
    const at = join(folder, "archive");
    execFileSync(bsdtar, ["-C", source, `--format=${format}`, "-cf", at, "."], { stdio: "pipe" });
    await expectSource(at);
  });
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
