import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import {
  fingerprint,
  formatSignature,
  parseSignature,
  SigningKey,
  signature,
  VerifyingKey,
} from "./signature.ts";
import { StorePath } from "./store-path.ts";

/** What `nix-store --generate-binary-cache-key test-1 SECRET PUBLIC` of Nix 2.8 wrote. */
const SECRET =
  "test-1:fK7OUxGWEysv80ATrWmO4zasduvsrDV9WTEqa/tnYHAGULpUN6PBVjea1+uxSPTQu/1xm18qfpAcKsybk/7ydw==";
const PUBLIC = "test-1:BlC6VDejwVY3mtfrsUj00Lv9cZtfKn6QHCrMm5P+8nc=";

const invalid = (reason: string) =>
  expect.objectContaining({
    name: "StoreError",
    code: "invalid_argument",
    message: expect.stringContaining(reason),
  });

describe("a fingerprint", () => {
  const path = (letter: string, name: string) => StorePath.parse(`${letter.repeat(32)}-${name}`);
  const signable = {
    storePath: path("b", "x"),
    narSize: 2n ** 64n - 1n,
    narSha256: new Uint8Array(32),
    references: [path("c", "y"), path("b", "x"), path("c", "y"), path("c", "X")],
  };

  it("has absolute paths, sorted and each once", () => {
    expect(fingerprint(signable)).toBe(
      `1;/nix/store/${"b".repeat(32)}-x;sha256:${"0".repeat(52)};18446744073709551615;` +
        `/nix/store/${"b".repeat(32)}-x,/nix/store/${"c".repeat(32)}-X,/nix/store/${"c".repeat(32)}-y`,
    );
  });

  it("ends with a semicolon where there are no references", () => {
    expect(fingerprint({ ...signable, references: [] })).toMatch(/615;$/);
  });

  it("names the store dir", () => {
    expect(fingerprint({ ...signable, references: [] }, "/other")).toMatch(/^1;\/other\/b/);
  });
});

describe("a key", () => {
  const key = SigningKey.parse(SECRET);

  it("is parsed and formatted as Nix writes it", () => {
    expect(key.name).toBe("test-1");
    expect(key.toSecretText()).toBe(SECRET);
    expect(`${key.verifyingKey}`).toBe(PUBLIC);
    expect(`${VerifyingKey.parse(PUBLIC)}`).toBe(PUBLIC);
    expect(`${VerifyingKey.from("test-1", key.verifyingKey.toBytes())}`).toBe(PUBLIC);
  });

  it("signs what only its public half verifies", () => {
    const signed = key.sign("text");
    const other = SigningKey.generate("test-1");
    expect(key.verifyingKey.verify("text", signed)).toBe(true);
    expect(key.verifyingKey.verify("text2", signed)).toBe(false);
    expect(other.verifyingKey.verify("text", signed)).toBe(false);
    expect(key.verifyingKey.verify("text", other.sign("text"))).toBe(false);
    expect(key.verifyingKey.verify("text", { ...signed, name: "test-2" })).toBe(false);
    expect(key.verifyingKey.verify("text", { ...signed, data: new Uint8Array(63) })).toBe(false);
  });

  it("is another one each time it is generated, and survives its text form", () => {
    const generated = SigningKey.generate("new");
    expect(generated.toSecretText()).not.toBe(SigningKey.generate("new").toSecretText());
    const again = SigningKey.parse(generated.toSecretText());
    expect(generated.verifyingKey.verify("text", again.sign("text"))).toBe(true);
  });

  it("shows its secret only when asked for it", () => {
    const secret = SECRET.slice(7, 50);
    for (const shown of [`${key}`, JSON.stringify(key), inspect(key, { depth: 9 })]) {
      expect(shown).not.toContain(secret);
    }
  });

  it.each([
    ["", "expected a name"],
    ["test-1", "expected a name"],
    [SECRET.slice(6), "expected a name"],
    [SECRET.slice(0, -1), "64 bytes in base64"],
    [`${SECRET}\n`, "64 bytes in base64"],
    [SECRET.replace("==", "A="), "64 bytes in base64"],
    [SECRET.replace(":", ": "), "64 bytes in base64"],
    [SECRET.replace("test-1", "test 1"), "expected a name"],
    [PUBLIC, "64 bytes in base64"],
    [`${SECRET.slice(0, 7)}${SECRET[7] === "A" ? "B" : "A"}${SECRET.slice(8)}`, "second half"],
  ])("is refused as a secret key without showing it: %#", (text, reason) => {
    expect(() => SigningKey.parse(text)).toThrow(invalid(reason));
    expect(() => SigningKey.parse(text)).not.toThrow(/[A-Za-z0-9+/]{20}/);
  });

  it.each([
    "",
    "test-1",
    SECRET,
    PUBLIC.slice(6),
    `${PUBLIC} `,
    `a:${PUBLIC}`,
    PUBLIC.slice(0, -1),
  ])("is refused as a public key without showing it: %#", (text) => {
    expect(() => VerifyingKey.parse(text)).toThrow(invalid("32 bytes in base64"));
    expect(() => VerifyingKey.parse(text)).not.toThrow(/[A-Za-z0-9+/]{20}/);
  });

  it("is refused with another length or an impossible name", () => {
    expect(() => VerifyingKey.from("a", new Uint8Array(31))).toThrow(invalid("found 31"));
    expect(() => VerifyingKey.from("", new Uint8Array(32))).toThrow(invalid("found none"));
    expect(() => SigningKey.generate("a:b")).toThrow(invalid("without colons"));
  });
});

describe("a signature", () => {
  const text = `cache-1:${Buffer.alloc(64, 7).toString("base64")}`;

  it("is parsed and formatted", () => {
    const parsed = parseSignature(text);
    expect(parsed.name).toBe("cache-1");
    expect(parsed.data.length).toBe(64);
    expect(formatSignature(parsed)).toBe(text);
  });

  it.each([
    "",
    "cache-1",
    text.slice(7),
    text.slice(8),
    text.slice(0, -4),
    text.slice(0, -2),
    `${text} `,
    text.replace("cache", "ca che"),
    text.replace("BwcH", "BwcH\n"),
    `cache-1:${Buffer.alloc(63).toString("base64")}`,
  ])("is refused in the form %j", (wrong) => {
    expect(() => parseSignature(wrong)).toThrow(invalid("Cannot parse signature"));
  });

  it("has 64 bytes and a name that fits on a line", () => {
    expect(() => signature("a", new Uint8Array(65))).toThrow(invalid("found 65"));
    expect(() => signature("a\nCA", new Uint8Array(64))).toThrow(invalid("control"));
  });
});
