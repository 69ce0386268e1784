import { readFileSync } from "node:fs";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { blake3Digest, CastoreError, symlinkTarget } from "@tvix/castore";
import * as pb from "@tvix/proto/store";
import { describe, expect, it } from "vitest";
import { encodingOf, isCanonicalPathInfo, readCanonicalPathInfo } from "./canonical-path-info.ts";
import { decodePathInfo, encodePathInfo, pathInfoFromProto, pathInfoToProto } from "./convert.ts";
import { nixHash } from "./nix/nix-hash.ts";
import { StorePath } from "./nix/store-path.ts";
import type { PathInfo } from "./pathinfo.ts";

const VECTORS = new URL("../../../vectors/tree-expected.json", import.meta.url);
const vectors: { pathInfo_base64: string }[] = JSON.parse(readFileSync(VECTORS, "utf8"));

const bytes = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 37 + seed * 101) & 0xff);
const path = (name: string, seed: number) => StorePath.from(bytes(20, seed), name);

const PLAIN: PathInfo = {
  storePath: path("plain-1.0", 1),
  node: { type: "file", digest: blake3Digest(bytes(3, 1)), size: 0n, executable: true },
  references: [],
  narSize: 0n,
  narSha256: bytes(32, 2),
  signatures: [],
};

const FULL: PathInfo = {
  storePath: path("full_name+with=everything?", 3),
  node: { type: "directory", digest: blake3Digest(bytes(3, 2)), size: 300n },
  references: [path("a", 4), path(".hidden-2", 5), path("x".repeat(211), 6)],
  narSize: 123_456_789n,
  narSha256: bytes(32, 7),
  signatures: ["cache.example.org-1", "b"].map((name, i) => ({ name, data: bytes(64, i) })),
  deriver: path("full.drv", 8),
  ca: { kind: "nar", hash: nixHash("sha512", bytes(64, 9)) },
};

const CANONICAL: readonly (readonly [string, Uint8Array])[] = [
  ...vectors.map(
    ({ pathInfo_base64 }, i) =>
      [`of the vectors, ${i}`, Buffer.from(pathInfo_base64, "base64")] as const,
  ),
  ...(
    [
      ["that is plain", PLAIN],
      ["with everything", FULL],
      ["of a symlink", { ...FULL, node: { type: "symlink", target: symlinkTarget("a/b") } }],
      ["of a text", { ...PLAIN, ca: { kind: "text", hash: nixHash("sha256", bytes(32, 3)) } }],
      ["of a flat file", { ...PLAIN, ca: { kind: "flat", hash: nixHash("md5", bytes(16, 3)) } }],
      ["with a size of 49 bits", { ...FULL, narSize: 2n ** 49n - 1n }],
    ] satisfies [string, PathInfo][]
  ).map(([name, pathInfo]) => [name, encode(pathInfo)] as const),
];

/** Those that are left to Protocol Buffers although they are canonical. */
const LARGE: readonly (readonly [string, Uint8Array])[] = (
  [
    ["a size of 50 bits", { ...FULL, narSize: 2n ** 49n }],
    ["a size of 64 bits", { ...FULL, narSize: 2n ** 64n - 1n }],
    [
      "a signature by a key that is not ASCII",
      {
        ...FULL,
        signatures: [{ name: "schlüssel-1", data: bytes(64, 1) }],
      },
    ],
  ] satisfies [string, PathInfo][]
).map(([name, pathInfo]) => [name, encode(pathInfo)] as const);

/** Encodes a PathInfo by Protocol Buffers. */
function encode(pathInfo: PathInfo): Uint8Array {
  return toBinary(pb.PathInfoSchema, pathInfoToProto(pathInfo));
}

/** What reading gives, as text: the encoding of a valid PathInfo, or the error. */
function outcome(read: () => PathInfo): string {
  try {
    return Buffer.from(encode({ ...read() })).toString("hex");
  } catch (error) {
    if (error instanceof CastoreError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

/** How Protocol Buffers and the rules of PathInfos read any encoding. */
function expectedOutcome(encoded: Uint8Array): string {
  let message: pb.PathInfo;
  try {
    message = fromBinary(pb.PathInfoSchema, encoded);
  } catch {
    return "invalid_argument: Cannot decode PathInfo: expected a valid message";
  }
  return outcome(() => pathInfoFromProto(message));
}

/** Checks that an encoding is read as any other reader reads it. Returns whether it is taken for canonical. */
function check(encoded: Uint8Array): boolean {
  const expected = expectedOutcome(encoded);
  const found = outcome(() => decodePathInfo(encoded));
  const isCanonical = isCanonicalPathInfo(encoded);
  const itself = Buffer.from(encoded).toString("hex");
  // One `expect` for all: it takes longer than all of the reading.
  if (found !== expected || (isCanonical && expected !== itself)) {
    expect({ encoded: itself, isCanonical, found }).toEqual({ encoded: expected, found: expected });
  }
  return isCanonical;
}

describe("reading a canonical PathInfo", () => {
  it.each(CANONICAL)("%s gives what any reader gives, and its encoding", (_, encoded) => {
    expect(check(encoded)).toBe(true);
    const pathInfo = readCanonicalPathInfo(encoded)!;
    const message = fromBinary(pb.PathInfoSchema, Uint8Array.from(encoded));
    expect(pathInfo).toEqual(pathInfoFromProto(message));
    expect(Buffer.compare(encodingOf(pathInfo)!, encoded)).toBe(0);
    expect(isCanonicalPathInfo(encoded, pathInfo.storePath.hashPart)).toBe(true);
    expect(isCanonicalPathInfo(encoded, bytes(20, 99))).toBe(false);
  });

  it.each(LARGE)("leaves %s to Protocol Buffers", (_, encoded) => {
    expect(check(encoded)).toBe(false);
  });

  it("keeps a copy of the bytes", () => {
    const encoded = Uint8Array.from(encode(FULL));
    const pathInfo = readCanonicalPathInfo(encoded)!;
    encoded.fill(0);
    expect(encode({ ...pathInfo })).toEqual(encode(FULL));
    expect(encodePathInfo(pathInfo)).toEqual(encode(FULL));
  });

  it("forgets the encoding where a property is another one", () => {
    const pathInfo = readCanonicalPathInfo(encode(FULL))!;
    const changed = { ...pathInfo, signatures: [] };
    expect(encodingOf(changed)).toBeUndefined();
    expect(encodePathInfo(changed)).toEqual(encode({ ...FULL, signatures: [] }));
  });

  it("takes no part of an encoding for the whole", () => {
    for (const [, encoded] of CANONICAL) {
      for (let length = 0; length < encoded.length; length++) {
        expect(check(encoded.subarray(0, length))).toBe(false);
      }
    }
  });

  it("reads encodings of which a byte is another one as any reader does", () => {
    let canonical = 0;
    let refused = 0;
    for (const encoded of [encode(PLAIN), encode(FULL), CANONICAL[0]![1]]) {
      for (let at = 0; at < encoded.length; at++) {
        for (const change of [1, 2, 8, 0x20, 0x80, 0xff, encoded[at]!]) {
          const mutated = Uint8Array.from(encoded);
          mutated[at] = mutated[at]! ^ change;
          if (check(mutated)) canonical += 1;
          else refused += 1;
        }
      }
    }
    expect(canonical).toBeGreaterThan(100);
    expect(refused).toBeGreaterThan(100);
  });

  it("reads encodings with a byte more or less as any reader does", () => {
    for (const encoded of [encode(PLAIN), encode(FULL)]) {
      for (let at = 0; at < encoded.length; at++) {
        check(Buffer.concat([encoded.subarray(0, at), encoded.subarray(at + 1)]));
        for (const added of [0, 1, 0x0a, 0x12, 0x80]) {
          check(
            Buffer.concat([encoded.subarray(0, at), Uint8Array.of(added), encoded.subarray(at)]),
          );
        }
      }
    }
  });

  it("leaves other encodings of the same message to Protocol Buffers", () => {
    const { node, references, narinfo } = pathInfoToProto(FULL);
    const only = (fields: Parameters<typeof create<typeof pb.PathInfoSchema>>[1]) =>
      toBinary(pb.PathInfoSchema, create(pb.PathInfoSchema, fields));
    const [first, second, third] = [only({ node }), only({ references }), only({ narinfo })];
    const unknown = Uint8Array.of(0x7a, 1, 0);
    const parts: Uint8Array[][] = [
      [third, second, first],
      [second, first, third],
      [first, second, third, third],
      [first, first, second, third],
      [first, second, third, unknown],
      [unknown, first, second, third],
      [first, second, Uint8Array.of(0x1a, 0), third],
    ];
    for (const encoded of parts.map((each) => Buffer.concat(each))) {
      expect(check(encoded)).toBe(false);
      expect(expectedOutcome(encoded)).not.toMatch(/^[a-z_]+: Cannot decode/);
    }
  });

  it("refuses the length of a field in more bytes than it takes, and default values", () => {
    const encoded = encode(PLAIN);
    const length = encoded[1]!;
    const longer = [encoded.subarray(0, 1), Uint8Array.of(length | 0x80, 0), encoded.subarray(2)];
    expect(check(Buffer.concat(longer))).toBe(false);
    const narInfo = Uint8Array.of(0x08, 0, 0x12, 32, ...PLAIN.narSha256);
    const withDefault = [
      encoded.subarray(0, 2 + length),
      Uint8Array.of(0x1a, narInfo.length),
      narInfo,
    ];
    expect(check(Buffer.concat(withDefault))).toBe(false);
    expect(expectedOutcome(Buffer.concat(withDefault))).toBe(Buffer.from(encoded).toString("hex"));
  });
});
