import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import * as pb from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { decodeDirectoryOf, encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import {
  anonymousNodeFromProto,
  decodeDirectory,
  directoryFromProto,
  namedNodeFromProto,
  nodeToProto,
} from "./convert.ts";
import { B3Digest } from "./digest.ts";
import { Directory } from "./directory.ts";
import { CastoreError } from "./errors.ts";
import { type Node, symlinkTarget } from "./node.ts";
import { pathComponent } from "./path.ts";

const digest = B3Digest.fromBytes(new Uint8Array(32).fill(0xab));
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const hex = (data: Uint8Array): string => Buffer.from(data).toString("hex");

function message(init: MessageInitShape<typeof pb.DirectorySchema>): pb.Directory {
  return create(pb.DirectorySchema, init);
}

/** What is refused of a message, taken as it is and taken from its encoding. */
function refusal(directory: pb.Directory): CastoreError {
  const errors = [
    () => directoryFromProto(directory),
    () => decodeDirectory(toBinary(pb.DirectorySchema, directory)),
  ].map((convert) => {
    try {
      convert();
    } catch (error) {
      return error as CastoreError;
    }
    throw new Error("expected a refusal");
  });
  expect(errors[1]).toEqual(errors[0]);
  expect(errors[0]).toBeInstanceOf(CastoreError);
  expect(errors[0]!.code).toBe("invalid_argument");
  return errors[0]!;
}

const file = (name: string | Uint8Array): MessageInitShape<typeof pb.FileNodeSchema> => ({
  name: typeof name === "string" ? bytes(name) : name,
  digest: digest.bytes,
});

const folder = (name: string, size = 0n): MessageInitShape<typeof pb.DirectoryNodeSchema> => ({
  name: bytes(name),
  digest: digest.bytes,
  size,
});

const link = (name: string, target = "x"): MessageInitShape<typeof pb.SymlinkNodeSchema> => ({
  name: bytes(name),
  target: bytes(target),
});

describe("encoding a directory", () => {
  it("gives nothing for an empty one, whose digest is that of nothing", () => {
    const encoded = encodeDirectory(Directory.from([]));
    expect(encoded.bytes.length).toBe(0);
    expect(encoded.digest.hex).toBe(
      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    );
  });

  it("writes lists and fields in number order, and leaves defaults out", () => {
    const directory = Directory.from([
      { name: pathComponent("l"), node: { type: "symlink", target: symlinkTarget("t") } },
      {
        name: pathComponent("b"),
        node: { type: "file", digest, size: 0n, executable: false },
      },
      {
        name: pathComponent("x"),
        node: { type: "file", digest, size: 300n, executable: true },
      },
      { name: pathComponent("d"), node: { type: "directory", digest, size: 0n } },
      { name: pathComponent("c"), node: { type: "directory", digest, size: 2n ** 64n - 11n } },
    ]);
    const encoded = encodeDirectory(directory);
    expect(hex(encoded.bytes)).toBe(
      [
        `0a30 0a0163 1220${digest.hex} 18f5ffffffffffffffff01`,
        `0a25 0a0164 1220${digest.hex}`,
        `1225 0a0162 1220${digest.hex}`,
        `122a 0a0178 1220${digest.hex} 18ac02 2001`,
        "1a06 0a016c 120174",
      ]
        .join("")
        .replaceAll(" ", ""),
    );
    expect(encoded.digest.equals(blake3Digest(encoded.bytes))).toBe(true);
    expect(encoded.directory).toBe(directory);
    expect(decodeDirectory(encoded.bytes).entries).toEqual(directory.entries);
    expect(decodeDirectoryOf(encoded.digest, encoded.bytes).entries).toEqual(directory.entries);
  });

  it("keeps names and targets that are no UTF-8", () => {
    const directory = Directory.from([
      {
        name: pathComponent(Uint8Array.of(0xff, 0x80)),
        node: { type: "symlink", target: symlinkTarget(Uint8Array.of(0xc0, 0x01)) },
      },
    ]);
    const { bytes } = encodeDirectory(directory);
    expect(hex(bytes)).toBe("1a080a02ff801202c001");
    expect(decodeDirectory(bytes).entries).toEqual(directory.entries);
  });

  it("is the same for entries given in another order", () => {
    const entries = ["b", "a", "\u{1f600}", "\u{ff61}"].map((name) => ({
      name: pathComponent(name),
      node: { type: "file", digest, size: 1n, executable: false } as const,
    }));
    const one = encodeDirectory(Directory.from(entries));
    const other = encodeDirectory(Directory.from(entries.toReversed()));
    expect(other.digest.hex).toBe(one.digest.hex);
  });
});

describe("a directory message", () => {
  it("is converted there and back", () => {
    const given = message({
      directories: [folder("a", 5n), folder("z")],
      files: [{ ...file("b"), size: 7n, executable: true }],
      symlinks: [link("c", "../target")],
    });
    const directory = directoryFromProto(given);
    expect(directory.size).toBe(13n);
    expect(directory.get(pathComponent("b"))).toEqual({
      type: "file",
      digest,
      size: 7n,
      executable: true,
    });
    expect(fromBinary(pb.DirectorySchema, encodeDirectory(directory).bytes)).toEqual(given);
  });

  it.each([
    ["directories", message({ directories: [folder("b"), folder("a")] })],
    ["files", message({ files: [file("b"), file("a")] })],
    ["symlinks", message({ symlinks: [link("b"), link("a")] })],
  ])("is refused with unsorted %s", (_name, given) => {
    expect(refusal(given).message).toBe(
      'Cannot use directory: name "a" stands after "b", expected strictly ascending names',
    );
  });

  it("is refused when sorted by UTF-16 code units instead of bytes", () => {
    const names = ["\u{1f600}", "\u{ff61}"];
    expect(names.toSorted()).toEqual(names);
    expect(refusal(message({ files: names.map(file) })).message).toContain("stands after");
  });

  it.each([
    ["directories", message({ directories: [folder("a"), folder("a")] })],
    ["files", message({ files: [file("a"), file("a")] })],
    ["symlinks", message({ symlinks: [link("a"), link("a")] })],
  ])("is refused with a name twice in the %s", (_name, given) => {
    expect(refusal(given).message).toContain('name "a" stands after "a"');
  });

  it.each([
    ["directories and files", message({ directories: [folder("a")], files: [file("a")] })],
    ["directories and symlinks", message({ directories: [folder("a")], symlinks: [link("a")] })],
    ["files and symlinks", message({ files: [file("a"), file("b")], symlinks: [link("a")] })],
  ])("is refused with a name in both %s", (_name, given) => {
    expect(refusal(given).message).toBe('Cannot build directory: name "a" occurs twice');
  });

  it.each([
    ["", "expected at least 1 byte"],
    ["a/b", 'expected no "/"'],
    ["a\0", "expected no NUL byte"],
    [".", 'expected neither "." nor ".."'],
    ["..", 'expected neither "." nor ".."'],
    ["x".repeat(256), "expected at most 255 bytes"],
  ])("is refused with the name %j, whatever has it", (name, reason) => {
    for (const given of [
      message({ directories: [folder(name)] }),
      message({ files: [file(name)] }),
      message({ symlinks: [link(name)] }),
    ]) {
      expect(refusal(given).message).toContain(reason);
    }
  });

  it.each([0, 20, 31, 33])("is refused with a digest of %d bytes", (length) => {
    const wrong = new Uint8Array(length);
    for (const given of [
      message({ directories: [{ ...folder("a"), digest: wrong }] }),
      message({ files: [{ ...file("a"), digest: wrong }] }),
    ]) {
      expect(refusal(given).message).toBe(
        `Cannot use ${length} bytes as a BLAKE3 digest: expected 32`,
      );
    }
  });

  it.each(["", "a\0b", "x".repeat(4096)])("is refused with a bad symlink target", (target) => {
    expect(refusal(message({ symlinks: [link("a", target)] })).message).toContain(
      `found ${target.length} bytes`,
    );
  });

  it("is refused with a size above 64 bits", () => {
    const given = message({ directories: [folder("a", 2n ** 64n - 3n), folder("b", 0n)] });
    expect(refusal(given).message).toBe(
      "Cannot build directory: its size 18446744073709551617 exceeds 64 bits",
    );
    given.directories.pop();
    expect(directoryFromProto(given).size).toBe(2n ** 64n - 1n);
  });
});

describe("decoding a directory", () => {
  const entry = toBinary(pb.FileNodeSchema, create(pb.FileNodeSchema, file("a")));
  /** Field 7, a varint. */
  const unknownField = Uint8Array.of(0x38, 0x01);

  it.each([
    [
      "itself",
      Buffer.concat([Uint8Array.of(0x12, entry.length), entry, unknownField]),
      "Directory",
    ],
    [
      "an entry",
      Buffer.concat([Uint8Array.of(0x12, entry.length + 2), entry, unknownField]),
      "FileNode",
    ],
  ])("refuses an unknown field in %s", (_name, encoded, type) => {
    expect(() => decodeDirectory(encoded)).toThrow(
      new CastoreError(
        "invalid_argument",
        `Cannot use directory: unknown field 7 in tvix.castore.v1.${type}`,
      ),
    );
  });

  it.each([
    ["bytes that are no message", Uint8Array.of(0xff, 0xff, 0xff)],
    ["a message cut short", Uint8Array.of(0x12, entry.length, ...entry.subarray(0, -1))],
  ])("refuses %s", (_name, encoded) => {
    expect(() => decodeDirectory(encoded)).toThrow(
      new CastoreError("invalid_argument", "Cannot decode directory: no valid message"),
    );
  });

  it("from storage reports another digest as data_loss", () => {
    const { bytes, digest: found } = encodeDirectory(Directory.from([]));
    expect(() => decodeDirectoryOf(digest, bytes)).toThrow(
      new CastoreError(
        "data_loss",
        `Cannot use directory ${digest}: its bytes have digest ${found}`,
      ),
    );
  });

  it("from storage reports an invalid directory as data_loss", () => {
    const invalid = toBinary(pb.DirectorySchema, message({ files: [file(".")] }));
    const own = blake3Digest(invalid);
    expect(() => decodeDirectoryOf(own, invalid)).toThrow(
      new CastoreError("data_loss", `Cannot use directory ${own}: it is not valid`),
    );
  });
});

describe("a node", () => {
  const nodes: [string, Node][] = [
    ["directory", { type: "directory", digest, size: 2n ** 64n - 1n }],
    ["file", { type: "file", digest, size: 3n, executable: true }],
    ["symlink", { type: "symlink", target: symlinkTarget("/target") }],
  ];

  it.each(nodes)("that is a %s is converted there and back under a name", (_name, node) => {
    const name = pathComponent(Uint8Array.of(0x61, 0xff));
    expect(namedNodeFromProto(nodeToProto(name, node))).toEqual({ name, node });
  });

  it.each(nodes)("that is a %s is converted there and back without a name", (_name, node) => {
    const converted = nodeToProto(undefined, node);
    expect(converted.node.value?.name.length).toBe(0);
    expect(anonymousNodeFromProto(converted)).toEqual(node);
  });

  it.each(nodes)("that is a %s is refused with a name where none is wanted", (_name, node) => {
    const named = nodeToProto(pathComponent("some"), node);
    expect(() => anonymousNodeFromProto(named)).toThrow(
      new CastoreError("invalid_argument", 'Cannot use node named "some": expected an empty name'),
    );
  });

  it.each(nodes)("that is a %s is refused without a name where one is wanted", (_name, node) => {
    expect(() => namedNodeFromProto(nodeToProto(undefined, node))).toThrow(
      new CastoreError(
        "invalid_argument",
        'Cannot use name "": expected at least 1 byte, found none',
      ),
    );
  });

  it("is refused if it is none", () => {
    const none = new CastoreError(
      "invalid_argument",
      "Cannot use node: expected a directory, a file or a symlink, found none",
    );
    expect(() => namedNodeFromProto(create(pb.NodeSchema))).toThrow(none);
    expect(() => anonymousNodeFromProto(create(pb.NodeSchema))).toThrow(none);
  });

  it("is refused with a bad digest or target", () => {
    const short = new Uint8Array(31);
    for (const node of [
      { case: "directory" as const, value: { digest: short } },
      { case: "file" as const, value: { digest: short } },
      { case: "symlink" as const, value: { target: bytes("") } },
    ]) {
      const given = create(pb.NodeSchema, { node });
      expect(() => anonymousNodeFromProto(given)).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    }
  });
});
