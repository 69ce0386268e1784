import { describe, expect, it } from "vitest";
import { decodeNixbase32, encodeNixbase32 } from "./nixbase32.ts";

describe("nixbase32", () => {
  it.each([
    ["", ""],
    ["1f", "0z"],
    // `nix-hash --type md5 --flat` of "contents\n", in both forms
    ["e66545a2155380046fce3fdbd32a6b4f", "2gdcmd7nrzrrph902k2ni4arg6"],
    [
      "bfe5ed57e6e323555b379c660aa8d35b70c2f8f07cf03ad6747266495ac13be0",
      "1q1vq5d4jrkjfkb3mw3wy3wc4w2vsfl0lrlw6xdma8z3wrbyvrdz",
    ],
  ])("encodes %s and decodes it again", (hex, expected) => {
    const text = encodeNixbase32(Buffer.from(hex, "hex"));
    expect(text).toBe(expected);
    expect(Buffer.from(decodeNixbase32(text)).toString("hex")).toBe(hex);
  });

  it("takes bytes of any length there and back", () => {
    let state = 1;
    for (let length = 0; length < 500; length++) {
      const bytes = Buffer.alloc(length);
      for (let i = 0; i < length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        bytes[i] = state >>> 24;
      }
      expect(Buffer.from(decodeNixbase32(encodeNixbase32(bytes))).equals(bytes)).toBe(true);
    }
  });

  it.each([
    ["a letter that is left out", "0e", '"e"'],
    ["an upper-case letter", "0A", '"A"'],
    ["what is no ASCII", "0ß", '"ß"'],
    ["a property of every object", "0_", '"_"'],
    ["a length that no bytes make", "0", "1 characters"],
    ["another one", "000", "3 characters"],
    ["unused bits that are not zero", "zz", "unused bits"],
  ])("refuses %s", (_, text, reason) => {
    expect(() => decodeNixbase32(text)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });
});
