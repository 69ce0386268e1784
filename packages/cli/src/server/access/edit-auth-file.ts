import { isDeepStrictEqual } from "node:util";
import { CastoreError } from "@tvix/castore";
import type { TomlFile } from "@tvix/castore/toml";
import { stringify, TomlDate } from "smol-toml";
import { type AuthRules, parseAuthRules, type TokenRule } from "./auth-rules.ts";
import { replaceFile } from "./replace-file.ts";
import { formatHash } from "./token.ts";

const NEW_FILE = `# Who may use the store: see docs/operations.md.
# "read" lets requests without a token read, "none" refuses them.
anonymous = "none"
`;

/**
 * Adds a token to an auth file, which is made if there is none. Everything else in it, comments and all, stays as it is.
 *
 * @throws CastoreError `invalid_argument` if it has a token of this name
 */
export async function addToken(path: string, token: TokenRule): Promise<void> {
  await edit(path, (text, rules) => {
    for (const { name } of rules.tokens.values()) {
      if (name !== token.name) continue;
      const remedy = "revoke it first, or choose another name";
      throw refusal(path, `there is a token ${JSON.stringify(name)} already; ${remedy}`);
    }
    const edited = `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}\n${tableOf(token)}`;
    return { edited, tokens: new Map([...rules.tokens, [token.id, token]]) };
  });
}

/**
 * Removes a token from an auth file. Everything else in it, comments and all, stays as it is.
 *
 * @param nameOrId the name of the token, or its id
 * @returns the token
 * @throws CastoreError `not_found` if there is none, `invalid_argument` if several have this name
 */
export async function removeToken(path: string, nameOrId: string): Promise<TokenRule> {
  let removed: TokenRule | undefined;
  await edit(path, (text, rules) => {
    const found = [...rules.tokens.values()].filter(
      ({ id, name }) => id === nameOrId || name === nameOrId,
    );
    removed = found[0];
    if (removed === undefined) {
      const message = `Cannot edit auth file "${path}": there is no token ${JSON.stringify(nameOrId)}`;
      throw new CastoreError("not_found", message);
    }
    if (found.length > 1) {
      const ids = found.map(({ id }) => id).join(", ");
      throw refusal(path, `several tokens have the name ${JSON.stringify(nameOrId)}: ${ids}`);
    }
    const tokens = new Map(rules.tokens);
    tokens.delete(removed.id);
    return { edited: withoutTable(text, removed.id), tokens };
  });
  return removed!;
}

/** Edits a file as a text, if what comes out has exactly the tokens that it should have. */
async function edit(
  path: string,
  change: (text: string, rules: AuthRules) => { edited: string; tokens: AuthRules["tokens"] },
): Promise<void> {
  const name = `auth file ${JSON.stringify(path)}`;
  await replaceFile(path, async (found) => {
    const text = found ?? NEW_FILE;
    const rules = await parseAuthRules({ name, text });
    const { edited, tokens } = change(text, rules);
    if (isDeepStrictEqual(await parsed({ name, text: edited }), { ...rules, tokens }))
      return edited;
    throw refusal(path, "its tokens are not written one table each; edit it by hand");
  });
}

async function parsed(file: TomlFile): Promise<AuthRules | undefined> {
  try {
    return await parseAuthRules(file);
  } catch {
    return undefined;
  }
}

function tableOf({ id, name, hash, scopes, storeNames, expiresMs }: TokenRule): string {
  const keys = {
    name,
    hash: formatHash(hash),
    scopes,
    ...(storeNames && { store_names: storeNames }),
    ...(expiresMs !== undefined && { expires: new TomlDate(new Date(expiresMs)) }),
  };
  return `[tokens.${id}]\n${stringify(keys).trimEnd()}\n`;
}

/** Removes the table of a token: its header, up to its last line that is neither empty nor a comment. */
function withoutTable(text: string, id: string): string {
  const lines = text.split("\n");
  const isHeader = (line: string) => /^\s*\[/.test(line);
  const start = lines.findIndex((line) => line.replace(/\s|#.*/g, "") === `[tokens.${id}]`);
  if (start === -1) return text;
  const next = lines.findIndex((line, i) => i > start && isHeader(line));
  const table = lines.slice(start, next === -1 ? undefined : next);
  const last = table.findLastIndex((line) => !/^\s*(?:#.*)?$/.test(line));
  const before = lines.slice(0, start);
  const after = lines.slice(start + last + 1);
  // One of the two empty lines that stood around it is enough.
  if (before.at(-1) === "" && after[0] === "") after.shift();
  return [...before, ...after].join("\n");
}

function refusal(path: string, reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot edit auth file "${path}": ${reason}`);
}
