import { describe, expect, it } from "vitest";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { B3Digest } from "./digest.ts";
import { CastoreError } from "./errors.ts";

const ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

describe("B3Digest", () => {
  it("is the BLAKE3 of the bytes", () => {
    expect(blake3Digest(Buffer.from("abc")).hex).toBe(ABC);
  });

  it("takes 32 bytes", () => {
    const digest = B3Digest.fromBytes(Buffer.from(ABC, "hex"));
    expect(digest.equals(blake3Digest(Buffer.from("abc")))).toBe(true);
    expect(Buffer.from(digest.bytes).toString("hex")).toBe(ABC);
  });

  it.each([0, 1, 20, 31, 33, 64])("refuses %d bytes", (length) => {
    expect(() => B3Digest.fromBytes(new Uint8Array(length))).toThrow(
      new CastoreError(
        "invalid_argument",
        `Cannot use ${length} bytes as a BLAKE3 digest: expected 32`,
      ),
    );
  });

  it("differs from another by any byte", () => {
    const bytes = Buffer.from(ABC, "hex");
    const digest = blake3Digest(Buffer.from("abc"));
    for (const at of bytes.keys()) {
      const changed = Uint8Array.from(bytes);
      changed[at]! ^= 1;
      const other = B3Digest.fromBytes(changed);
      expect(digest.equals(other)).toBe(false);
      expect(digest.key).not.toBe(other.key);
    }
  });

  it("has a key that is equal for equal digests, and leads back to it", () => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    for (let at = 0; at < 256; at += 32) {
      const digest = B3Digest.fromBytes(all.subarray(at, at + 32)); // lone surrogates among them
      expect(digest.copy().key).toBe(digest.key);
      expect(B3Digest.fromKey(digest.key).equals(digest)).toBe(true);
    }
  });

  it("shows its own bytes when they are part of a larger buffer", () => {
    const padded = Buffer.concat([Buffer.alloc(7), Buffer.from(ABC, "hex"), Buffer.alloc(7)]);
    const digest = B3Digest.fromBytes(padded.subarray(7, 39));
    expect(digest.hex).toBe(ABC);
    expect(`${digest}`).toBe(`b3:${Buffer.from(ABC, "hex").toString("base64")}`);
  });

  it("is written in base64 as in the reference's documentation", () => {
    expect(`${blake3Digest(Buffer.from("x86_64-linux"))}`).toBe(
      "b3:KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA=",
    );
  });

  it.each([
    ["base64, as it is shown", "b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU="],
    ["hexadecimal digits", `b3:${ABC}`],
    ["upper-case hexadecimal digits", `b3:${ABC.toUpperCase()}`],
  ])("is parsed from %s", (_, text) => {
    expect(B3Digest.parse(text).hex).toBe(ABC);
    expect(B3Digest.parse(`${B3Digest.parse(text)}`).hex).toBe(ABC);
  });

  it.each([
    "",
    "b3:",
    ABC,
    `b3:${ABC}0`,
    `b3:${ABC.slice(1)}`,
    `B3:${ABC}`,
    "b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU",
    "b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYV=", // unused bits that are not zero
    "b3:ZDezrDhGUTP_tjt1JzqNtUjFWEZdedsD_TWcbNW9nYU=",
    "b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nQ==",
  ])("is not parsed from %j", (text) => {
    expect(() => B3Digest.parse(text)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});
