import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseAuthRules, type TokenRule } from "./auth-rules.ts";
import { addToken, removeToken } from "./edit-auth-file.ts";
import { SCOPES } from "./scope.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "auth-file-"));
  path = join(folder, "auth.toml");
});
afterEach(() => rmSync(folder, { recursive: true }));

const HASH = { logN: 14, r: 8, p: 1, salt: Buffer.from("salt"), hash: Buffer.alloc(32, 7) };

function rule(number: number, fields: Partial<TokenRule> = {}): TokenRule {
  const id = number.toString(16).padStart(12, "0");
  const rest = { scopes: ["read"], storeNames: undefined, expiresMs: undefined } as const;
  return { id, name: `token-${number}`, hash: HASH, ...rest, ...fields };
}

const read = () => readFileSync(path, "utf8");

describe("editing an auth file", () => {
  it("makes one that only its owner can read", async () => {
    await addToken(path, rule(1));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await parseAuthRules({ name: "auth file", text: read() })).toEqual({
      anonymousReads: false,
      tokens: new Map([[rule(1).id, rule(1)]]),
    });
  });

  it("keeps comments, order, permissions and the symlink to it", async () => {
    const before = `# first\nanonymous = "read" # kept\n\n# about the token\n[tokens.000000000009] # here\nname='x'\n  hash = '''${"$scrypt$ln=14,r=8,p=1$c2FsdA$"}BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc'''\nscopes = [\n  "read",\n]\n\n# last\n`;
    writeFileSync(path, before);
    chmodSync(path, 0o640);
    const link = join(folder, "link");
    symlinkSync(path, link);
    await addToken(link, rule(1, { storeNames: ['a-"*'], expiresMs: 1_800_000_000_000 }));
    expect(read().startsWith(before)).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o640);
    await removeToken(link, "token-1");
    expect(read().trimEnd()).toBe(before.trimEnd());
    await removeToken(link, "000000000009");
    expect(read()).toBe('# first\nanonymous = "read" # kept\n\n# about the token\n\n# last\n');
    expect(readdirSync(folder).sort()).toEqual(["auth.toml", "link"]);
  });

  const aRule = fc
    .record({
      scopes: fc.uniqueArray(fc.constantFrom(...SCOPES), { minLength: 1 }),
      storeNames: fc.option(fc.array(fc.string({ minLength: 1 }), { minLength: 1 }), {
        nil: undefined,
      }),
      expiresMs: fc.option(
        fc.integer({ min: 0, max: 4_000_000_000 }).map((s) => s * 1000),
        {
          nil: undefined,
        },
      ),
    })
    .map((fields) => fields);

  it("adds and removes any tokens in any order", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aRule, { minLength: 1, maxLength: 5 }),
        fc.infiniteStream(fc.nat()),
        async (fields, choices) => {
          rmSync(path, { force: true });
          const expected = new Map<string, TokenRule>();
          for (const [i, one] of fields.entries()) {
            const added = rule(i, one);
            await addToken(path, added);
            expected.set(added.id, added);
          }
          while (expected.size > 0) {
            expect((await parseAuthRules({ name: "auth file", text: read() })).tokens).toEqual(
              expected,
            );
            const ids = [...expected.keys()];
            const id = ids[choices.next().value! % ids.length]!;
            expect((await removeToken(path, id)).id).toBe(id);
            expected.delete(id);
          }
          expect((await parseAuthRules({ name: "auth file", text: read() })).tokens.size).toBe(0);
        },
      ),
      { seed: 17, numRuns: 30 },
    );
  });

  it("refuses a name that is taken, one that is unknown, and one that several have", async () => {
    await addToken(path, rule(1));
    await expect(addToken(path, rule(2, { name: "token-1" }))).rejects.toThrow(
      'there is a token "token-1" already',
    );
    await expect(removeToken(path, "other")).rejects.toMatchObject({ code: "not_found" });
    writeFileSync(path, `${read()}\n${read().slice(read().indexOf("[")).replace("001]", "002]")}`);
    await expect(removeToken(path, "token-1")).rejects.toThrow("several tokens have the name");
    await removeToken(path, rule(2).id);
    expect([...(await parseAuthRules({ name: "auth file", text: read() })).tokens.keys()]).toEqual([
      rule(1).id,
    ]);
  });

  it("leaves alone what it cannot edit", async () => {
    await addToken(path, rule(1));
    const keys = read().slice(read().indexOf("name")).trim().split("\n").join(", ");
    const inline = `tokens.${rule(1).id} = { ${keys} }\n`;
    writeFileSync(path, inline);
    await expect(removeToken(path, "token-1")).rejects.toThrow("edit it by hand");
    writeFileSync(path, "anonymous = ");
    await expect(addToken(path, rule(2))).rejects.toThrow("expected TOML");
    expect(read()).toBe("anonymous = ");
    expect(readdirSync(folder)).toEqual(["auth.toml"]);
  });

  it.for([0, 0.1, 0.3, 1])("loses no token when one is added every %d ms", async (ms) => {
    const added = await Promise.allSettled(
      Array.from({ length: 200 }, async (_, i) => {
        await setTimeout(i * ms);
        await addToken(path, rule(i));
      }),
    );
    const done = added.filter(({ status }) => status === "fulfilled").length;
    expect(done).toBeGreaterThan(0);
    expect((await parseAuthRules({ name: "auth file", text: read() })).tokens.size).toBe(done);
    for (const outcome of added) {
      if (outcome.status === "rejected") expect(outcome.reason.code).toBe("aborted");
    }
    expect(readdirSync(folder)).toEqual(["auth.toml"]);
  });

  it("says where a file is that another command left behind", async () => {
    writeFileSync(join(folder, ".auth.toml.edit"), "");
    await expect(addToken(path, rule(1))).rejects.toThrow(`remove "${folder}/.auth.toml.edit"`);
  });
});
