import { describe, expect, it } from "vitest";
import { parseAuthRules } from "./auth-rules.ts";

const HASH = `$scrypt$ln=14,r=8,p=1$c2FsdA$${Buffer.alloc(32, 7).toString("base64").replace("=", "")}`;
const ID = "0123456789ab";
const token = (keys: string) => `[tokens.${ID}]\nname = "ci"\nhash = "${HASH}"\n${keys}`;

describe("an auth file", () => {
  it("says who may do what", () => {
    const { anonymousReads, tokens } = parseAuthRules(
      `anonymous = "read"\n${token('scopes = ["write"]\nstore_names = ["a-*"]\nexpires = 2027-01-31T12:00:00+01:00')}`,
    );
    expect(anonymousReads).toBe(true);
    expect(tokens.get(ID)).toMatchObject({
      id: ID,
      name: "ci",
      scopes: ["write"],
      storeNames: ["a-*"],
      expiresMs: Date.UTC(2027, 0, 31, 11),
    });
  });

  it("lets nobody in where it says nothing", () => {
    expect(parseAuthRules("")).toEqual({ anonymousReads: false, tokens: new Map() });
  });

  it.each([
    ["anonymous = true", "anonymous: "],
    ['anonymous = "write"', "anonymous: "],
    ["anonymus = 1", 'Unrecognized key: "anonymus"'],
    ["tokens = 1", "tokens: "],
    [token('scopes = ["read"]').replace(ID, "ci"), "tokens: expected ids of 12 hex digits"],
    [token(""), `tokens.${ID}.scopes: `],
    [token("scopes = []"), `tokens.${ID}.scopes: `],
    [token('scopes = ["all"]'), `tokens.${ID}.scopes.0: `],
    [token('scopes = ["read"]\nstore_names = []'), `tokens.${ID}.store_names: `],
    [token('scopes = ["read"]\nexpires = "soon"'), "expected a date and time with an offset"],
    [token('scopes = ["read"]\nexpires = 2027-01-31'), "expected a date and time with an offset"],
    [token('scopes = ["read"]\nexpires = 2027-01-31T12:00:00'), "with an offset"],
    [token('scopes = ["read"]\nscope = "read"'), 'Unrecognized key: "scope"'],
    [token('scopes = ["read"]').replace("ln=14", "ln=40"), `tokens.${ID}.hash: expected "$scrypt$`],
    [token('scopes = ["read"]').replace('"ci"', '"a\\nb"'), `tokens.${ID}.name: expected`],
    ["a = \n", "expected TOML, found none at line 1"],
  ])("is refused: %j", (text, reason) => {
    expect(() => parseAuthRules(text)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringMatching(/^Cannot use auth file: (?!.*BwcH)/),
      }),
    );
    expect(() => parseAuthRules(text)).toThrow(reason);
  });
});
