import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { noise } from "../../test/noise.ts";
import { blake3Digest } from "./blake3-digest.ts";
import { MAX_HASHED_BYTES } from "./blake3-tree.ts";
import { Outboard, OutboardEncoder } from "./outboard.ts";

const VECTORS = new URL("../../../../vectors/outboards.json", import.meta.url);

interface Vector {
  readonly content: { readonly stream: string; readonly size: number };
  readonly digest_hex: string;
  readonly outboard_hex?: string;
  readonly outboardSha256_hex?: string;
}
const vectors: readonly Vector[] = JSON.parse(readFileSync(VECTORS, "utf8"));

function contentOf({ stream, size }: Vector["content"]): Buffer {
  const parts: Buffer[] = [];
  const counter = Buffer.alloc(8);
  for (let i = 0; i * 32 < size; i++) {
    counter.writeBigUInt64LE(BigInt(i));
    parts.push(createHash("sha256").update(stream).update(counter).digest());
  }
  return Buffer.concat(parts).subarray(0, size);
}

function encode(data: Uint8Array, step: number): Uint8Array {
  const encoder = new OutboardEncoder();
  for (let at = 0; at < data.length; at += step) encoder.update(data.subarray(at, at + step));
  return encoder.finish();
}

function verifyAll(outboard: Outboard, data: Uint8Array): void {
  let at = 0;
  do {
    outboard.verify(data.subarray(at, at + MAX_HASHED_BYTES), at / (16 * 1024));
    at += MAX_HASHED_BYTES;
  } while (at < data.length);
}

const dataLoss = expect.objectContaining({ name: "CastoreError", code: "data_loss" });

describe("an outboard", () => {
  it.each(vectors)("of $content.size bytes is that of the reference", (vector) => {
    const data = contentOf(vector.content);
    expect(blake3Digest(data).hex).toBe(vector.digest_hex);
    for (const step of [data.length || 1, 1000, 300_000]) {
      const bytes = Buffer.from(encode(data, step));
      expect(bytes.length).toBe(Outboard.length(data.length));
      const found = vector.outboard_hex
        ? bytes.toString("hex")
        : createHash("sha256").update(bytes).digest("hex");
      expect(found).toBe(vector.outboard_hex ?? vector.outboardSha256_hex);
      verifyAll(Outboard.parse(blake3Digest(data), bytes), data);
    }
  });

  const data = noise(150_000);
  const digest = blake3Digest(data);
  const bytes = encode(data, data.length);

  it("verifies each group by itself", () => {
    const outboard = Outboard.parse(digest, bytes);
    for (let first = 0; first * 16_384 < data.length; first++) {
      for (const count of [1, 2, 5]) {
        outboard.verify(data.subarray(first * 16_384, (first + count) * 16_384), first);
      }
    }
  });

  it("is refused wherever it was cut", () => {
    for (let length = 0; length < bytes.length; length++) {
      expect(() => Outboard.parse(digest, bytes.subarray(0, length))).toThrow(dataLoss);
    }
    const longer = Buffer.concat([bytes, Buffer.alloc(64)]);
    expect(() => Outboard.parse(digest, longer)).toThrow(dataLoss);
  });

  it("is refused wherever a bit was flipped, when the blob is verified", () => {
    for (let at = 0; at < bytes.length; at++) {
      const wrong = Uint8Array.from(bytes);
      wrong[at]! ^= 1 << (at % 8);
      expect(() => verifyAll(Outboard.parse(digest, wrong), data)).toThrow(dataLoss);
    }
  });

  it("refuses bytes that are others, wherever they are", () => {
    const outboard = Outboard.parse(digest, bytes);
    for (let at = 0; at < data.length; at += 997) {
      const wrong = Uint8Array.from(data);
      wrong[at]! ^= 1 << (at % 8);
      expect(() => verifyAll(outboard, wrong)).toThrow(dataLoss);
    }
  });

  it("refuses bytes that are missing, too many, or stand elsewhere", () => {
    const outboard = Outboard.parse(digest, bytes);
    const wrong: readonly (readonly [Uint8Array, number])[] = [
      [data.subarray(0, 16_383), 0],
      [data.subarray(0, 16_384), 1],
      [data.subarray(1, 16_385), 0],
      [data.subarray(9 * 16_384, 149_999), 9],
      [Buffer.concat([data.subarray(9 * 16_384), Buffer.alloc(1)]), 9],
      [data.subarray(0, 16_384), 10],
      [Buffer.alloc(0), 0],
    ];
    for (const [part, first] of wrong) {
      expect(() => outboard.verify(part, first)).toThrow(dataLoss);
    }
  });

  it("of a blob without nodes is believed only with the blob", () => {
    for (const contents of [Buffer.alloc(0), Buffer.from("some bytes")]) {
      const outboard = Outboard.parse(blake3Digest(contents), encode(contents, 100));
      outboard.verify(contents, 0);
      const other = Outboard.parse(digest, encode(contents, 100));
      expect(() => other.verify(contents, 0)).toThrow(dataLoss);
    }
  });
});
