import { type AbortOptions, CastoreError } from "@tvix/castore";
import { readAuthFile } from "../server/access/auth-file.ts";
import type { TokenRule } from "../server/access/auth-rules.ts";
import { addToken, removeToken } from "../server/access/edit-auth-file.ts";
import type { Scope } from "../server/access/scope.ts";
import { formatToken, hashSecret, newToken, TOKEN_NAME } from "../server/access/token.ts";
import { writeStderr, writeStdout } from "../terminal/output.ts";

/** Options of all commands for tokens. */
export interface TokenOptions {
  authFile: string;
}

/** Options of {@link createToken}. */
export interface CreateTokenOptions extends TokenOptions {
  scope: Scope[];
  storeName?: string[];
  /** When it expires, in milliseconds since 1970. */
  expires?: number;
}

/** Adds a token to an auth file, and prints it. */
export async function createToken(
  name: string,
  { authFile, scope, storeName, expires }: CreateTokenOptions,
  options: AbortOptions,
): Promise<void> {
  if (!TOKEN_NAME.test(name)) {
    const expected = "1 to 64 letters, digits or any of . _ - + @";
    const message = `Cannot create a token: expected a name of ${expected}, found ${JSON.stringify(name)}`;
    throw new CastoreError("invalid_argument", message);
  }
  const token = newToken();
  const hash = await hashSecret(token.secret);
  const rule = { id: token.id, name, hash, scopes: scope, storeNames: storeName };
  await addToken(authFile, { ...rule, expiresMs: expires });
  await writeStdout(`${formatToken(token)}\n`, options);
}

/** Prints the tokens of an auth file, a line each, without anything secret. */
export async function listTokens({ authFile }: TokenOptions, options: AbortOptions): Promise<void> {
  const { tokens } = await readAuthFile(authFile);
  const rows = [
    ["ID", "NAME", "SCOPES", "STORE NAMES", "EXPIRES"],
    ...Array.from(tokens.values(), cellsOf),
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  "));
  await writeStdout(lines.map((line) => `${line.trimEnd()}\n`).join(""), options);
}

/** Removes a token from an auth file. */
export async function revokeToken(nameOrId: string, { authFile }: TokenOptions): Promise<void> {
  const { id, name } = await removeToken(authFile, nameOrId);
  writeStderr(`revoked token ${id} (${name})\n`);
}

function cellsOf({ id, name, scopes, storeNames, expiresMs }: TokenRule): string[] {
  const expiry = expiresMs === undefined ? "never" : new Date(expiresMs).toISOString();
  const expired = expiresMs !== undefined && expiresMs <= Date.now() ? " (expired)" : "";
  return [id, name, scopes.join(", "), storeNames?.join(", ") ?? "*", `${expiry}${expired}`];
}
