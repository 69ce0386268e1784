import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { noise } from "../../test/noise.ts";
import { type Fields, member, octal, padded, pax, tar } from "../../test/tar.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { CastoreError } from "../model/errors.ts";
import type { Node } from "../model/node.ts";
import { importArchive } from "./archive.ts";

let services: { blobService: MemoryBlobService; directoryService: CountingDirectoryService };
beforeEach(() => {
  services = {
    blobService: new MemoryBlobService(),
    directoryService: new CountingDirectoryService(),
  };
});

/** Knows whether anybody has closed a putter, after which directories can be seen. */
class CountingDirectoryService extends MemoryDirectoryService {
  closed = 0;

  override openPutter(...args: Parameters<MemoryDirectoryService["openPutter"]>) {
    const putter = super.openPutter(...args);
    const close = putter.close.bind(putter);
    putter.close = () => {
      this.closed += 1;
      return close();
    };
    return putter;
  }
}

async function* inPieces(data: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

/** What is in a tree: by path, one character a byte, contents or targets. */
async function listing(node: Node, path = "", into: Record<string, string> = {}) {
  if (node.type === "symlink") {
    into[path] = `-> ${Buffer.from(node.target).toString("latin1")}`;
  } else if (node.type === "file") {
    const stream = await services.blobService.read(node.digest);
    const contents = Buffer.from(await collectBytes(stream!));
    expect(contents.length).toBe(Number(node.size));
    into[path] = `${node.executable ? "x " : ""}${contents.toString("latin1")}`;
  } else {
    const directory = await services.directoryService.get(node.digest);
    if (directory!.entries.length === 0) into[`${path}/`] = "";
    for (const { name, node } of directory!.entries) {
      const at = Buffer.from(name).toString("latin1");
      await listing(node, path === "" ? at : `${path}/${at}`, into);
    }
  }
  return into;
}

const unpacked = async (archive: Uint8Array) =>
  await listing(await importArchive(inPieces(archive), services));

const file = (path: string, contents: string, fields: Fields = {}) =>
  member(path, { contents, ...fields });
const folder = (path: string) => member(path, { kind: "5", mode: 0o755 });
const symlink = (path: string, target: string) => member(path, { kind: "2", target });
const hardLink = (path: string, target: string) => member(path, { kind: "1", target });

async function refused(archive: Uint8Array, code: string, reason: string): Promise<void> {
  const failure = expect.objectContaining({ code, message: expect.stringContaining(reason) });
  await expect(importArchive(inPieces(archive), services)).rejects.toThrow(failure);
  expect(services.directoryService.closed).toBe(0);
}

describe("importArchive", () => {
  it("stores files, folders and symlinks, and what the owner may execute", async () => {
    const archive = tar(
      folder("./"),
      folder("./folder/"),
      file("./folder/file", "contents"),
      file("tool", "run", { mode: 0o100 }),
      file("not-the-owner", "", { mode: 0o655 }),
      symlink("link", "/where/ever/../it/leads"),
      folder("empty"),
    );
    expect(await unpacked(archive)).toEqual({
      "folder/file": "contents",
      tool: "x run",
      "not-the-owner": "",
      link: "-> /where/ever/../it/leads",
      "empty/": "",
    });
  });

  it("makes the folders that are no members", async () => {
    expect(await unpacked(tar(file("a//b/./c/d", "1"), folder("e/f/")))).toEqual({
      "a/b/c/d": "1",
      "e/f/": "",
    });
  });

  it("stores an archive without members as an empty folder", async () => {
    expect(await unpacked(tar())).toEqual({ "/": "" });
    expect(await unpacked(tar(folder(".")))).toEqual({ "/": "" });
  });

  it("keeps the bytes of names and targets, wherever they stand", async () => {
    const bytes = (text: string) => Buffer.from(text, "latin1");
    const long = `${"\xe9".repeat(200)}/\xff`;
    const archive = tar(
      member(bytes("\xff\xfe")),
      pax([["path", bytes("\xe9\xe8=\n")]]),
      member("another", { contents: "pax" }),
      pax([["linkpath", bytes("\xf1")]]),
      symlink("link", "another"),
      member("././@LongLink", { kind: "L", contents: bytes(`${long}\0`) }),
      file("another", "long"),
      member("././@LongLink", { kind: "K", contents: bytes(`${long}\0`) }),
      symlink("to-long", "another"),
      member("././@LongLink", { kind: "K", contents: bytes(`${long}\0`) }),
      hardLink("hard", "another"),
      member("name", { contents: "prefixed", patches: { 345: bytes("\xc3\x28/folder") } }),
    );
    expect(await unpacked(archive)).toEqual({
      "\xff\xfe": "",
      "\xe9\xe8=\n": "pax",
      link: "-> \xf1",
      [long]: "long",
      "to-long": `-> ${long}`,
      hard: "long",
      "\xc3\x28/folder/name": "prefixed",
    });
  });

  it("reads what old tars wrote", async () => {
    const v7 = { 257: Buffer.alloc(8) };
    const archive = tar(
      member("folder/", { kind: "\0", patches: v7 }),
      member("folder/file", { kind: "\0", patches: v7, contents: "1" }),
      member("spaces", {
        contents: "12345678",
        patches: { 100: "   644 \0", 124: "         10 " },
      }),
      member("contiguous", { kind: "7", contents: "2" }),
      // The field of the prefix has times in it.
      member("gnu", { patches: { 257: "ustar  \0", 345: "14000000000" } }),
    );
    expect(await unpacked(archive)).toEqual({
      "folder/file": "1",
      spaces: "12345678",
      contiguous: "2",
      gnu: "",
    });
  });

  it("takes checksums that were made of signed bytes", async () => {
    const archive = tar(member(Buffer.from([0xff, 0x61])));
    const sum = Number.parseInt(archive.toString("latin1", 148, 155), 8);
    archive.write(octal(sum - 256, 7), 148);
    expect(await unpacked(archive)).toEqual({ "\xffa": "" });
  });

  it("takes sizes from where there is room for them", async () => {
    const binary = Buffer.alloc(12);
    binary[0] = 0x80;
    binary[11] = 5;
    const archive = tar(
      member("binary", { contents: "12345", patches: { 124: binary } }),
      pax([["size", "6"]]),
      member("pax", { contents: "123456", patches: { 124: octal(0, 12) } }),
    );
    expect(await unpacked(archive)).toEqual({ binary: "12345", pax: "123456" });
  });

  it("passes by what is no member, and what folders and links say of a size", async () => {
    const size = { 124: octal(4096, 12) };
    const archive = tar(
      member("the name of the archive", { kind: "V" }),
      pax([["comment", "made by hand"]], "g"),
      member("folder", { kind: "5", patches: size }),
      file("folder/file", "1"),
      member("link", { kind: "2", target: "x", patches: size }),
      member("hard", { kind: "1", target: "folder/file", patches: size }),
      member("dump", { kind: "D", contents: "Yfile\0\0" }),
    );
    expect(await unpacked(archive)).toEqual({
      "folder/file": "1",
      link: "-> x",
      hard: "1",
      "dump/": "",
    });
  });

  it("goes by what a global header says until another one takes it back", async () => {
    const archive = tar(
      pax([["path", "named"]], "g"),
      file("a", "1"),
      pax([["path", ""]], "g"),
      file("b", "2"),
    );
    expect(await unpacked(archive)).toEqual({ named: "1", b: "2" });
  });

  it("ends at a block of zeros, and reads on to the end of the stream", async () => {
    let ended = false;
    const stream = async function* () {
      yield* inPieces(Buffer.concat([tar(file("a", "1")), noise(100_000)]));
      ended = true;
    };
    expect(await listing(await importArchive(stream(), services))).toEqual({ a: "1" });
    expect(ended).toBe(true);
  });

  it.each([
    ["plain", (data: Buffer) => data],
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ])("ends behind a member, too, without a block of zeros (%s)", async (_, compress) => {
    expect(await unpacked(compress(file("a", "1")))).toEqual({ a: "1" });
    expect(await unpacked(compress(Buffer.concat([file("a", "1"), folder("b")])))).toEqual({
      a: "1",
      "b/": "",
    });
  });

  it.each(["/", "//", "/.", "/./"])("takes a folder %s for the root", async (path) => {
    expect(await unpacked(tar(folder(path), file("a", "1")))).toEqual({ a: "1" });
  });

  it("gives the same tree however the bytes arrive", async () => {
    const archive = tar(
      ...Array.from({ length: 30 }, (_, i) => file(`d${i % 3}/f${i}`, `${i}`.repeat(i * 40))),
      member("large", { contents: noise(300_000) }),
    );
    const digests = new Set<string>();
    for (const size of [1, 7, 511, 512, 513, 1_000_000]) {
      const node = await importArchive(inPieces(archive, size), services);
      if (node.type === "directory") digests.add(node.digest.hex);
    }
    expect(digests.size).toBe(1);
  });

  it("tells how far it has come", async () => {
    const seen: { entries: number; bytes: number }[] = [];
    const archive = tar(
      folder("a"),
      file("a/b", "12345"),
      member("c", { contents: noise(200_000) }),
    );
    await importArchive(inPieces(archive), services, { onProgress: (now) => seen.push(now) });
    expect(seen.at(-1)).toEqual({ entries: 3, bytes: 200_005 });
  });

  it("takes many files, some of them again and again", async () => {
    const members = Array.from({ length: 5000 }, (_, i) =>
      file(`d${i % 7}/f${i % 4000}`, `${i % 50}`),
    );
    const found = await unpacked(tar(...members));
    const expected = Array.from({ length: 5000 }, (_, i) => [
      `d${i % 7}/f${i % 4000}`,
      `${i % 50}`,
    ]);
    expect(found).toEqual(Object.fromEntries(expected));
  });
});

/** What GNU tar 1.34 makes of each in an empty folder. */
describe("importArchive, like GNU tar,", () => {
  it.each<[string, Buffer[], Record<string, string>]>([
    ["a file by a file", [file("a", "1"), file("./a", "2", { mode: 0o755 })], { a: "x 2" }],
    ["a file by a symlink", [file("a", "1"), symlink("a", "x")], { a: "-> x" }],
    ["a file by a folder", [file("a", "1"), folder("a")], { "a/": "" }],
    [
      "a symlink by a folder",
      [folder("b"), symlink("a", "b"), folder("a/")],
      { "a/": "", "b/": "" },
    ],
    ["an empty folder by a file", [folder("a"), file("a", "1")], { a: "1" }],
    ["an empty folder by a symlink", [folder("a"), symlink("a", "x")], { a: "-> x" }],
    [
      "a file by a hard link",
      [file("b", "1"), file("a", "2"), hardLink("a", "b")],
      { a: "1", b: "1" },
    ],
    ["a folder by nothing when it comes again", [file("a/b", "1"), folder("a")], { "a/b": "1" }],
  ])("replaces %s", async (_, members, expected) => {
    expect(await unpacked(tar(...members))).toEqual(expected);
  });

  it.each<[string, Buffer[], Record<string, string>]>([
    [
      "whose other name is replaced later",
      [file("b", "1"), hardLink("a", "./b"), file("b", "2")],
      { a: "1", b: "2" },
    ],
    ["to itself", [file("b", "1"), hardLink("b", "b")], { b: "1" }],
    ["to a symlink", [symlink("b", "x"), hardLink("a", "b")], { a: "-> x", b: "-> x" }],
    [
      "to a hard link",
      [file("c", "1", { mode: 0o700 }), hardLink("b", "c"), hardLink("a/d", "b")],
      { "a/d": "x 1", b: "x 1", c: "x 1" },
    ],
  ])("makes a hard link %s", async (_, members, expected) => {
    expect(await unpacked(tar(...members))).toEqual(expected);
  });

  it.each<[string, Buffer[], string]>([
    ["a file in place of a folder with entries", [file("a/b", "1"), file("a", "2")], '"a"'],
    ["a symlink in place of such a folder", [file("a/b", "1"), symlink("a", "x")], '"a"'],
    ["a hard link in place of one", [file("b", "1"), file("a/c", "2"), hardLink("a", "b")], '"a"'],
    ["a member below a file", [file("a", "1"), file("a/b", "2")], '"a/b"'],
    [
      "a hard link to what comes later",
      [hardLink("a", "b"), file("b", "1")],
      "found nothing there",
    ],
    ["a hard link to a folder", [folder("b"), hardLink("a", "b")], "found a folder"],
    ["a hard link to the root", [hardLink("a", ".")], "found a folder"],
  ])("refuses %s", async (_, members, reason) => {
    await refused(tar(...members), "invalid_argument", reason);
  });
});

describe("importArchive refuses", () => {
  it.each<[string, Buffer[], string]>([
    ["a path with ..", [file("a/../../b", "1")], '"a/../../b"'],
    ["a path with .. that stays inside", [file("a/../b", "1")], '"a/../b"'],
    ["an absolute path", [file("/etc/passwd", "1")], '"/etc/passwd"'],
    ["a hard link that leads outside", [hardLink("a", "../b")], '"../b"'],
    ["an absolute hard link", [hardLink("a", "/etc/passwd")], '"/etc/passwd"'],
    ["a member below a symlink", [symlink("a", "b"), file("a/b", "1")], 'found the symlink "a"'],
    ["a link below a symlink", [symlink("a", "b"), hardLink("c", "a/b")], 'found the symlink "a"'],
    ["a file without a name", [file("./", "1", { kind: "2", target: "x" })], "the root"],
    ["a name of 256 bytes", [pax([["path", "n".repeat(256)]]), file("a", "1")], "255"],
    ["a name with NUL", [pax([["path", "a\0b"]]), file("a", "1")], "NUL"],
    ["a symlink to nothing", [symlink("a", "")], '"a"'],
    [
      "a fifo",
      [member("a/pipe", { kind: "6" })],
      '"a/pipe" of an archive: expected a file, folder',
    ],
    ["a character device", [member("null", { kind: "3" })], "a character device"],
    ["a block device", [member("sda", { kind: "4" })], "a block device"],
    ["a part of a file", [member("part", { kind: "M", contents: "1" })], "another archive"],
    ["an unknown kind", [member("what", { kind: "Z" })], 'a member of kind "Z"'],
  ])("%s, by its path", async (_, members, reason) => {
    await refused(tar(file("before", "1"), ...members), "invalid_argument", reason);
  });

  it.each<[string, Buffer, string]>([
    ["nothing at all", Buffer.alloc(0), "at byte 0: expected 512 more bytes, found the end"],
    ["something else", noise(5000), "at byte 0: expected a tar header"],
    ["an archive that ends within a block", file("a", "1").subarray(0, 700), "at byte 513"],
    [
      "an end without zeros behind an extended header",
      Buffer.concat([file("a", "1"), pax([["path", "b"]])]),
      "found the end",
    ],
    ["a wrong checksum", tar(file("a", "1"), file("b", "2").fill("c", 0, 1)), "at byte 1024"],
    ["a mode that is no number", tar(member("a", { patches: { 100: "what" } })), "number as mode"],
    ["a size below zero", tar(member("a", { patches: { 124: Buffer.alloc(12, 0xff) } })), "size"],
    [
      "an extended header that is none",
      tar(member("x", { kind: "x", contents: "99 a=b\n" })),
      "99",
    ],
    ["a record without a key", tar(member("x", { kind: "x", contents: "5 =b\n" })), "record"],
    ["a record without a length", tar(member("x", { kind: "x", contents: "a=b\n" })), "length"],
    ["a size in words", tar(pax([["size", "much"]]), file("a", "1")), '"much"'],
    ["an end behind an extended header", tar(pax([["path", "a"]])), "found the end"],
    [
      "a path without end",
      tar(member("x", { kind: "L", contents: "a/".repeat(20_000) }), file("a", "1")),
      "at most 32768 bytes",
    ],
    [
      "an extended header without end",
      tar(member("x", { kind: "x", patches: { 124: octal(2 ** 30, 12) } })),
      "at most 4194304 bytes",
    ],
  ])("%s as damaged", async (_, archive, reason) => {
    await refused(archive, "data_loss", reason);
  });

  it("a path of a file where there is none, or a folder", async () => {
    await expect(importArchive("/no/such.tar", services)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining('"/no/such.tar"'),
    });
    await expect(importArchive("/", services)).rejects.toMatchObject({ name: "CastoreError" });
  });
});

describe("importArchive of sparse files", () => {
  const sparse = (map: string, size: number, contents: string) =>
    tar(
      pax([
        ["GNU.sparse.major", "1"],
        ["GNU.sparse.minor", "0"],
        ["GNU.sparse.name", "sparse"],
        ["GNU.sparse.realsize", `${size}`],
      ]),
      member("GNUSparseFile.0/sparse", {
        contents: Buffer.concat([padded(Buffer.from(map)), Buffer.from(contents)]),
      }),
    );

  it("puts zeros where nothing is, also before, behind and instead of all", async () => {
    expect(await unpacked(sparse("2\n3\n2\n8\n1\n", 10, "abc"))).toEqual({
      sparse: "\0\0\0ab\0\0\0c\0",
    });
    expect(await unpacked(sparse("1\n5\n0\n", 5, ""))).toEqual({ sparse: "\0".repeat(5) });
    expect(await unpacked(sparse("0\n", 200_000, ""))).toEqual({ sparse: "\0".repeat(200_000) });
  });

  it("reads a map of several blocks, whose numbers are torn", async () => {
    const extents = Array.from({ length: 300 }, (_, i) => [1000 + i * 7, 1] as const);
    const map = [[extents.length], ...extents].flat().join("\n");
    const [found] = Object.values(await unpacked(sparse(`${map}\n`, 4000, "x".repeat(300))));
    const expected = Buffer.alloc(4000);
    for (const [offset] of extents) expected.write("x", offset);
    expect(found).toBe(expected.toString("latin1"));
  });

  it.each([
    ["parts that overlap", sparse("2\n3\n2\n4\n1\n", 10, "abc")],
    ["a part behind the end", sparse("1\n9\n2\n", 10, "ab")],
    ["less than its parts", sparse("1\n3\n5\n", 10, "ab")],
    ["more than its parts", sparse("1\n3\n1\n", 10, "ab")],
    ["a map without end", sparse("9\n1\n", 10, "ab")],
    ["a map that is none", sparse("one\n", 10, "ab")],
    ["a map without lines", sparse("1".repeat(600), 10, "ab")],
    [
      "another version",
      tar(
        pax([
          ["GNU.sparse.major", "2"],
          ["GNU.sparse.realsize", "1"],
        ]),
        file("a", "1"),
      ),
    ],
    ["no size", tar(pax([["GNU.sparse.major", "1"]]), file("a", "1"))],
    [
      "offsets without lengths",
      tar(
        pax([
          ["GNU.sparse.size", "9"],
          ["GNU.sparse.map", "1,1,2"],
        ]),
        file("a", "1"),
      ),
    ],
  ])("refuses %s", async (_, archive) => {
    await refused(archive, "data_loss", "");
  });

  it.each([
    ["star", tar(file("a", "1", { kind: "S" })), "another format than that of GNU tar"],
    ["star, POSIX", tar(pax([["SCHILY.realsize", "9"]]), file("a", "1")), "SCHILY.realsize"],
    ["Solaris", tar(pax([["SUN.holesdata", " 0 8 "]]), file("a", "1")), "SUN.holesdata"],
  ])("refuses those of %s by path", async (_, archive, reason) => {
    await refused(archive, "invalid_argument", reason);
    await refused(archive, "invalid_argument", '"a"');
  });
});

describe("importArchive of what is damaged or breaks off", () => {
  const members = [
    folder("folder"),
    pax([["path", "folder/a long name"]]),
    file("short", "contents", { mode: 0o755 }),
    symlink("link", "folder"),
    hardLink("hard", "folder/a long name"),
    file("last", "x".repeat(600)),
  ];
  const archive = tar(...members);

  it("refuses all that ends anywhere but behind a member, and shows nothing", async () => {
    // Behind an extended header comes a member.
    const ends = members.map((_, i) =>
      i === 1 ? 0 : Buffer.concat(members.slice(0, i + 1)).length,
    );
    for (let length = 0; length < archive.length - 1024; length++) {
      // At each edge of a block, and here and there within.
      if (![0, 1, 511].includes(length % 512) && length % 61 !== 0) continue;
      if (length > 0 && ends.includes(length)) continue;
      await expect(
        importArchive(inPieces(archive.subarray(0, length)), services),
      ).rejects.toMatchObject({ code: "data_loss" });
    }
    expect(services.directoryService.closed).toBe(0);
  });

  it.each([
    ["gzip", gzipSync(archive)],
    ["zstd", zstdCompressSync(archive)],
  ])("refuses every beginning of it that %s has compressed", async (_, compressed) => {
    for (let length = 0; length < compressed.length; length++) {
      await expect(
        importArchive(inPieces(compressed.subarray(0, length)), services),
      ).rejects.toMatchObject({ code: "data_loss" });
    }
    expect(services.directoryService.closed).toBe(0);
    expect(Object.keys(await unpacked(compressed))).toHaveLength(4);
  });

  it("refuses compressed archives whose checksum is wrong", async () => {
    const compressed = gzipSync(Buffer.concat([archive, Buffer.alloc(10_000)]));
    compressed[compressed.length - 6]! ^= 1;
    await refused(compressed, "data_loss", "gzip");
  });

  it("refuses, or takes as what it is, what has other bytes", async () => {
    let state = 1;
    const random = (limit: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    let taken = 0;
    for (let i = 0; i < 2000; i++) {
      const damaged = Buffer.from(archive);
      const at = random(archive.length);
      damaged[at]! ^= 1 + random(255);
      // Of half of them the header is made to fit: what it says is looked at.
      if (i % 2 === 0) fixChecksum(damaged, at);
      try {
        await unpacked(damaged);
        taken += 1;
      } catch (error) {
        expect(error).toBeInstanceOf(CastoreError);
        expect((error as CastoreError).code).toMatch(/^(data_loss|invalid_argument)$/);
      }
    }
    expect(taken).toBeGreaterThan(100);
    expect(taken).toBeLessThan(1900);
  });

  /** Makes the checksum of the block right in which a byte is. */
  function fixChecksum(bytes: Buffer, at: number): void {
    const block = bytes.subarray(at - (at % 512), at - (at % 512) + 512);
    if (block.toString("latin1", 257, 262) !== "ustar") return;
    block.fill(" ", 148, 156);
    block.write(
      octal(
        block.reduce((sum, byte) => sum + byte),
        7,
      ),
      148,
    );
  }
});

describe("importArchive that ends early", () => {
  it("rejects with the reason when it is cancelled, before or while it waits", async () => {
    const reason = new Error("enough");
    const cancelled = importArchive(inPieces(tar()), services, {
      signal: AbortSignal.abort(reason),
    });
    await expect(cancelled).rejects.toBe(reason);
    const stop = new AbortController();
    const never = async function* () {
      yield file("a", "1");
      setImmediate(() => stop.abort(reason));
      await new Promise(() => undefined);
    };
    await expect(importArchive(never(), services, { signal: stop.signal })).rejects.toBe(reason);
    expect(services.directoryService.closed).toBe(0);
  });

  it.each([
    ["plain", (data: Buffer) => data],
    ["gzip", gzipSync],
  ])(
    "passes on what the stream throws, and ends it where the archive is refused (%s)",
    async (_, compress) => {
      const failure = new Error("the stream broke");
      const bytes = compress(
        Buffer.concat([file("a", "1"), member("b", { contents: noise(90_000) })]),
      );
      const broken = async function* () {
        yield bytes.subarray(0, bytes.length - 100);
        throw failure;
      };
      await expect(importArchive(broken(), services)).rejects.toBe(failure);
      let released = false;
      const endless = async function* () {
        try {
          yield compress(
            Buffer.concat([file("/absolute", ""), member("b", { contents: noise(90_000) })]),
          );
          for (;;) yield noise(1000);
        } finally {
          released = true;
        }
      };
      await expect(importArchive(endless(), services)).rejects.toMatchObject({
        code: "invalid_argument",
      });
      expect(released).toBe(true);
      expect(services.directoryService.closed).toBe(0);
    },
  );

  it("passes on what the services throw", async () => {
    const full = new CastoreError("resource_exhausted", "Cannot store: full");
    const small = tar(...Array.from({ length: 2000 }, (_, i) => file(`${i}`, "1")));
    services.blobService.putMany = () => Promise.reject(full);
    await expect(importArchive(inPieces(small), services)).rejects.toBe(full);
    const large = tar(member("large", { contents: noise(500_000) }), file("small", "1"));
    services.blobService.openWriter = () => ({
      write: () => Promise.resolve(),
      close: () => Promise.reject(full),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
    await expect(importArchive(inPieces(large), services)).rejects.toBe(full);
    expect(services.directoryService.closed).toBe(0);
  });
});

describe("importArchive from a file", () => {
  let path: string;
  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), "archive-"));
  });
  afterEach(() => rmSync(path, { recursive: true }));

  it("names the file where it is damaged, or is no archive", async () => {
    const at = join(path, "archive.tar.gz");
    const compressed = gzipSync(tar(file("a", "1")));
    writeFileSync(at, compressed.subarray(0, compressed.length - 9));
    await expect(importArchive(at, services)).rejects.toMatchObject({
      code: "data_loss",
      message: `Cannot decompress "${at}" (gzip): it breaks off: expected the rest of a stream, found the end`,
    });
    writeFileSync(at, noise(5000));
    await expect(importArchive(at, services)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(
        `Cannot read tar archive "${at}": at byte 0: expected a tar`,
      ),
    });
  });

  it("takes a path that is not UTF-8", async () => {
    const at = Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xff, 0xfe])]);
    await expect(importArchive(at, services)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining("\\xff\\xfe"),
    });
    writeFileSync(at, tar(file("a", "1")));
    expect(await listing(await importArchive(at, services))).toEqual({ a: "1" });
  });

  it("gives the same as from a stream, compressed or not", async () => {
    const plain = tar(file("a", "1"), member("b", { contents: noise(700_000) }));
    const expected = await importArchive(inPieces(plain), services);
    for (const bytes of [plain, gzipSync(plain), zstdCompressSync(plain)]) {
      const at = join(path, "archive");
      writeFileSync(at, bytes);
      expect(await importArchive(at, services)).toEqual(expected);
      expect(await importArchive(createReadStream(at), services)).toEqual(expected);
    }
  });
});
