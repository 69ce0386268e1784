import { describe, expect, it } from "vitest";
import { parseAuthRules } from "./auth-rules.ts";

const HASH = `$scrypt$ln=14,r=8,p=1$c2FsdA$${Buffer.alloc(32, 7).toString("base64").replace("=", "")}`;
const ID = "0123456789ab";
const parse = (text: string) => parseAuthRules({ name: "auth file", text });
const token = (keys: string) => `[tokens.${ID}]\nname = "ci"\nhash = "${HASH}"\n${keys}`;

describe("an auth file", () => {
  it("says who may do what", async () => {
    const { anonymousReads, tokens } = await parse(
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

  it("lets nobody in where it says nothing", async () => {
    expect(await parse("")).toEqual({ anonymousReads: false, tokens: new Map() });
  });

  it.each([
    ["anonymous = true", 'line 1, column 1: key "anonymous": '],
    ['\n  anonymous = "raed"', 'line 2, column 3: key "anonymous": did you mean "read"?'],
    [
      "anonymus = 1",
      'unknown key "anonymus": did you mean "anonymous"? (expected anonymous, tokens)',
    ],
    ["tokens = 1", 'key "tokens": expected table, found number'],
    [token('scopes = ["read"]').replace(ID, "ci"), 'key "tokens": expected ids of 12 hex digits'],
    [token(""), `line 1, column 1: expected key "tokens.${ID}.scopes", found none`],
    [token("scopes = []"), `line 4, column 1: key "tokens.${ID}.scopes": `],
    [token('scopes = ["all"]'), `key "tokens.${ID}.scopes.0": expected read, write, admin`],
    [token('scopes = ["read"]\nstore_names = []'), `key "tokens.${ID}.store_names": `],
    [token('scopes = ["read"]\nexpires = "soon"'), "expected a date and time with an offset"],
    [token('scopes = ["read"]\nexpires = 2027-01-31'), "expected a date and time with an offset"],
    [token('scopes = ["read"]\nexpires = 2027-01-31T12:00:00'), "with an offset"],
    [token('scopes = ["read"]\nscope = "read"'), 'unknown key "scope": did you mean "scopes"?'],
    [
      token('scopes = ["read"]').replace("ln=14", "ln=40"),
      `key "tokens.${ID}.hash": expected "$scrypt$`,
    ],
    [token('scopes = ["read"]').replace('"ci"', '"a\\nb"'), `key "tokens.${ID}.name": expected`],
    ["a = \n", /line 1, column \d+: expected TOML, found none/],
  ])("is refused: %j", async (text, reason) => {
    await expect(parse(text)).rejects.toThrow(reason);
    await expect(parse(text)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/^Cannot use auth file: (?!.*BwcH)/),
    });
  });
});
