import { describe, expect, it } from "vitest";
import {
  formatNixHash,
  type HashForm,
  nixHash,
  parseAnyNixHash,
  parseNixHash,
} from "./nix-hash.ts";

// `nix-hash --type ALGORITHM --flat [--base32]` of Nix 2.8, of a file that holds "contents\n".
const HASHES = [
  ["md5", "e66545a2155380046fce3fdbd32a6b4f", "2gdcmd7nrzrrph902k2ni4arg6"],
  ["sha1", "572c291421cd821a5e821e28766d0bdb719c379d", "klvrqwfv1dnpca0yh9g1m0nd44a2jb2p"],
  [
    "sha256",
    "bfe5ed57e6e323555b379c660aa8d35b70c2f8f07cf03ad6747266495ac13be0",
    "1q1vq5d4jrkjfkb3mw3wy3wc4w2vsfl0lrlw6xdma8z3wrbyvrdz",
  ],
  [
    "sha512",
    "ba20e411c40b8311f6364354226f8c3617cc8c3cf7df43d66ab1ced75da81e7e" +
      "5099933dc4b6deeed6dd69c0b87913616e532beb0d9118b724b16c47e8e76f36",
    "0v6zrz88xnb295p328hvsrbadp624vrp306kpfnxvgbdi1xjfcm0zhym1fxgkm" +
      "idbb47pzp7j6cq5rniipj4m236vv130qbqh8y885s",
  ],
] as const;

const FORMS: readonly HashForm[] = ["nixbase32", "hex", "base64", "sri"];

const invalid = (reason: string) =>
  expect.objectContaining({ code: "invalid_argument", message: expect.stringContaining(reason) });

describe("a hash", () => {
  it.each(HASHES)("by %s is formatted as Nix does it, and parsed again", (algorithm, hex, text) => {
    const hash = nixHash(algorithm, Buffer.from(hex, "hex"));
    expect(formatNixHash(hash)).toBe(`${algorithm}:${text}`);
    const parsed = parseNixHash(`${algorithm}:${text}`);
    expect(parsed.algorithm).toBe(algorithm);
    expect(Buffer.from(parsed.digest).toString("hex")).toBe(hex);
  });

  it.each(HASHES)(
    "by %s is written in four forms, each of which is told apart",
    (algorithm, hex) => {
      const hash = nixHash(algorithm, Buffer.from(hex, "hex"));
      const base64 = Buffer.from(hex, "hex").toString("base64");
      expect(formatNixHash(hash, "hex")).toBe(`${algorithm}:${hex}`);
      expect(formatNixHash(hash, "base64")).toBe(`${algorithm}:${base64}`);
      expect(formatNixHash(hash, "sri")).toBe(`${algorithm}-${base64}`);
      for (const form of FORMS) {
        const text = formatNixHash(hash, form);
        expect(parseAnyNixHash(text)).toEqual(parseNixHash(text, form));
        expect(parseAnyNixHash(text, algorithm)).toEqual(parseNixHash(text, form));
        expect(formatNixHash(parseNixHash(text, form))).toBe(formatNixHash(hash));
        if (form !== "sri") {
          const bare = text.slice(algorithm.length + 1);
          expect(formatNixHash(parseAnyNixHash(bare, algorithm), form)).toBe(text);
        }
        for (const other of FORMS.filter((other) => other !== form)) {
          expect(() => parseNixHash(text, other)).toThrow(invalid(""));
        }
      }
    },
  );

  it.each([
    ["hex", "md5:E66545A2155380046FCE3FDBD32A6B4F", "lower-case hexadecimal"],
    ["hex", "md5:e66545a2155380046fce3fdbd32a6b4", "lower-case hexadecimal"],
    ["hex", "md5:e66545a2155380046fce3fdbd32a6bzz", "lower-case hexadecimal"],
    ["hex", "md5:e66545a2155380046fce3fdbd32a6b", "expected 16"],
    ["base64", "md5:5mVFohVTgARvzj/b0yprTw", "padded base64"],
    ["base64", "md5:5mVFohVTgARvzj_b0yprTw==", "padded base64"],
    ["base64", "md5:5mVFohVTgARvzj/b0yprTx==", "padded base64"],
    ["base64", "md5:5mVFohVTgARvzj/b0yprTw== ", "padded base64"],
    ["sri", "md5:5mVFohVTgARvzj/b0yprTw==", "and a dash"],
    ["sri", "md5-5mVFohVTgARvzj/b0yprTw==?opt", "padded base64"],
    ["sri", "-5mVFohVTgARvzj/b0yprTw==", "expected one of"],
  ] as const)("is refused as %s in the form %j", (form, text, reason) => {
    expect(() => parseNixHash(text, form)).toThrow(invalid(reason));
    expect(() => parseAnyNixHash(text, "sha1")).toThrow(invalid(""));
  });

  it.each([
    ["e66545a2155380046fce3fdbd32a6b4f", undefined, "expected one of"],
    ["md5:e66545a2155380046fce3fdbd32a6b4f", "sha1", "expected one by sha1, found md5"],
    ["md5-5mVFohVTgARvzj/b0yprTw==", "sha1", "expected one by sha1, found md5"],
    ["e66545a2155380046fce3fdbd32a6b4f", "sha1", "Cannot decode nixbase32"],
    ["", "sha1", "expected 20"],
  ] as const)("is refused, whatever its form: %j", (text, algorithm, reason) => {
    expect(() => parseAnyNixHash(text, algorithm)).toThrow(invalid(reason));
  });

  it.each(HASHES)("by %s has no other length", (algorithm, hex) => {
    const { length } = Buffer.from(hex, "hex");
    for (const wrong of [0, length - 1, length + 1]) {
      expect(() => nixHash(algorithm, new Uint8Array(wrong))).toThrow(
        expect.objectContaining({
          name: "StoreError",
          code: "invalid_argument",
          message: `Cannot use ${wrong} bytes as a ${algorithm} digest: expected ${length}`,
        }),
      );
    }
  });

  it.each([
    ["", "expected one of md5, sha1, sha256, sha512"],
    [":", "expected one of"],
    ["md5", "expected one of"],
    ["2gdcmd7nrzrrph902k2ni4arg6", "expected one of"],
    ["MD5:2gdcmd7nrzrrph902k2ni4arg6", "expected one of"],
    [" md5:2gdcmd7nrzrrph902k2ni4arg6", "expected one of"],
    ["constructor:2gdcmd7nrzrrph902k2ni4arg6", "expected one of"],
    ["md5:", "expected 16"],
    ["sha1:2gdcmd7nrzrrph902k2ni4arg6", "expected 20"],
    ["md5:2gdcmd7nrzrrph902k2ni4arg6 ", "Cannot decode nixbase32"],
    ["md5:zgdcmd7nrzrrph902k2ni4arg6", "unused bits"],
    ["md5:e66545a2155380046fce3fdbd32a6b4f", 'found "e"'],
    ["md5::2gdcmd7nrzrrph902k2ni4arg6", "expected the length of an encoding, found 27 characters"],
  ])("is refused in the form %j", (text, reason) => {
    expect(() => parseNixHash(text)).toThrow(invalid(reason));
  });
});
