import { describe, expect, it } from "vitest";
import { presentedToken } from "./credentials.ts";
import {
  formatHash,
  formatToken,
  hashSecret,
  isSecretOf,
  newToken,
  parseHash,
  parseToken,
} from "./token.ts";

const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;

describe("a token", () => {
  it("is written and parsed", () => {
    for (let i = 0; i < 100; i++) {
      const token = newToken();
      expect(parseToken(formatToken(token))).toEqual(token);
    }
    const text = formatToken(newToken());
    for (const other of ["", `${text}x`, ` ${text}`, text.slice(1), text.toUpperCase(), "tvx__"]) {
      expect(parseToken(other)).toBeUndefined();
    }
  });

  it("has a hash that is written and parsed, and that of no other secret", async () => {
    const { secret } = newToken();
    const hash = await hashSecret(secret);
    expect(parseHash(formatHash(hash))).toEqual(hash);
    expect(formatHash(hash)).not.toContain(secret);
    expect(formatHash(await hashSecret(secret))).not.toBe(formatHash(hash));
    expect(await isSecretOf(secret, hash)).toBe(true);
    expect(await isSecretOf(newToken().secret, hash)).toBe(false);
  });

  it.each([
    ["no memory for a small machine", "$scrypt$ln=30,r=8,p=1$c2FsdA$"],
    ["no wide blocks", "$scrypt$ln=14,r=99,p=1$c2FsdA$"],
    ["no cost of nothing", "$scrypt$ln=0,r=8,p=1$c2FsdA$"],
    ["no other scheme", "$argon2$ln=14,r=8,p=1$c2FsdA$"],
  ])("allows %s in its hash", (_, start) => {
    const digest = Buffer.alloc(32, 7).toString("base64").replace("=", "");
    expect(parseHash(`$scrypt$ln=14,r=8,p=1$c2FsdA$${digest}`)).toBeDefined();
    expect(parseHash(start + digest)).toBeUndefined();
    expect(parseHash("$scrypt$ln=14,r=8,p=1$c2FsdA$c2hvcnQ")).toBeUndefined();
  });

  it.each([
    ["Bearer tvx_1_a", "tvx_1_a"],
    ["bearer  tvx_1_a ", "tvx_1_a"],
    [basic("name:tvx_1_a"), "tvx_1_a"],
    [basic(":tvx_1_a"), "tvx_1_a"],
    [basic("name:a:b"), "a:b"],
    [basic("tvx_1_a"), undefined],
    ["Digest tvx_1_a", undefined],
    ["Bearer", undefined],
    ["Bearer a b", undefined],
    ["tvx_1_a", undefined],
  ])("is presented by %j as %j", (header, token) => {
    expect(presentedToken(header)).toBe(token);
  });
});
