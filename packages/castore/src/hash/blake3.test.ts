import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type Blake3, blake3, loadNativeBlake3, loadPortableBlake3 } from "./blake3.ts";

const EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
const ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

/** Bytes that look random and are the same every time. */
function noise(size: number): Buffer {
  return createHash("shake256", { outputLength: size }).update("blake3").digest();
}

/** The input of the official vectors: bytes that count from 0 to 250 and begin anew. */
function officialInput(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => i % 251);
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const native = loadNativeBlake3();
const implementations: [string, Blake3][] = [["portable", loadPortableBlake3()]];
if (native !== undefined) implementations.push(["native", native]);

describe.each(implementations)("BLAKE3, %s", (name, implementation) => {
  it("says which implementation it is", () => {
    expect(implementation.implementation).toBe(name);
  });

  // https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json
  it.each([
    [0, EMPTY],
    [1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"],
    [1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"],
    [1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"],
    [1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"],
  ])("gives the official digest of %d bytes", (size, expected) => {
    expect(hex(implementation.hash(officialInput(size)))).toBe(expected);
  });

  it('gives the known digest of "abc"', () => {
    const found = implementation.hash(Buffer.from("abc"));
    expect(hex(found)).toBe(ABC);
    expect(found.length).toBe(32);
  });

  it("gives the digest of nothing when nothing is added", () => {
    expect(hex(implementation.createHasher().digest())).toBe(EMPTY);
  });

  it("hashes in pieces as at once", () => {
    const data = noise(300_001);
    for (const length of [1_000, 1_024, 65_537, 300_001]) {
      const hasher = implementation.createHasher();
      for (let at = 0; at < data.length; at += length) {
        hasher.update(data.subarray(at, at + length));
      }
      expect(hex(hasher.digest())).toBe(hex(implementation.hash(data)));
    }
  });

  it("keeps nothing of what it was given", () => {
    const piece = Buffer.from("abc");
    const hasher = implementation.createHasher();
    hasher.update(piece);
    piece.fill(0);
    expect(hex(hasher.digest())).toBe(ABC);
  });

  it("hashes a part of a larger buffer", () => {
    expect(hex(implementation.hash(Buffer.from("xabcx").subarray(1, 4)))).toBe(ABC);
  });

  it("gives digests that later ones do not change", () => {
    const first = implementation.hash(Buffer.from("abc"));
    implementation.hash(noise(10_000));
    expect(hex(first)).toBe(ABC);
  });
});

describe("the BLAKE3 in use", () => {
  it("is the native one where that can be loaded", () => {
    expect(blake3.implementation).toBe(native === undefined ? "portable" : "native");
  });

  const missing = native === undefined ? " (missing: a native BLAKE3)" : "";
  it.skipIf(native === undefined)(`gives what the other one gives${missing}`, () => {
    const portable = loadPortableBlake3();
    for (const size of [0, 1, 63, 64, 65, 1_023, 1_024, 1_025, 8_192, 100_000, 1_048_577]) {
      const data = noise(size);
      expect(hex(native!.hash(data))).toBe(hex(portable.hash(data)));
    }
  });
});
