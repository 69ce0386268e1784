import { refusalOf } from "@tvix/castore";
import { parseToml, type TomlFile, tomlError } from "@tvix/castore/toml";
import { TomlDate } from "smol-toml";
import { z } from "zod";
import { SCOPES, type Scope } from "./scope.ts";
import { parseHash, type SecretHash, TOKEN_NAME } from "./token.ts";

/** Who may use a store: the contents of an auth file. */
export interface AuthRules {
  /** Whether requests without a token may read. */
  readonly anonymousReads: boolean;
  /** Tokens by their ids. */
  readonly tokens: ReadonlyMap<string, TokenRule>;
}

/** What a token grants. */
export interface TokenRule {
  readonly id: string;
  /** Name for people and logs. */
  readonly name: string;
  readonly hash: SecretHash;
  readonly scopes: readonly Scope[];
  /** Globs of which one must match the name of each store path that is registered. `undefined`: any name. */
  readonly storeNames: readonly string[] | undefined;
  /** The end of its validity, in milliseconds since 1970. `undefined`: it has none. */
  readonly expiresMs: number | undefined;
}

const hash = z.string().transform((text, context) => {
  const parsed = parseHash(text);
  if (parsed !== undefined) return parsed;
  const expected = '"$scrypt$ln=N,r=8,p=1$SALT$HASH", as "tvix-store token create" writes it';
  context.addIssue({ code: "custom", message: `expected ${expected}` });
  return z.NEVER;
});

const expires = z
  .custom<TomlDate>(
    (value) => value instanceof TomlDate && value.isDateTime() && !value.isLocal(),
    {
      error: "expected a date and time with an offset, such as 2027-01-31T12:00:00Z",
    },
  )
  .transform((date) => date.getTime());

const TOKEN = z.strictObject({
  name: z.string().regex(TOKEN_NAME, {
    error: "expected 1 to 64 letters, digits or any of . _ - + @",
  }),
  hash,
  scopes: z.array(z.enum(SCOPES)).min(1),
  store_names: z.array(z.string().min(1)).min(1).optional(),
  expires: expires.optional(),
});

const AUTH_FILE = z.strictObject({
  anonymous: z.enum(["read", "none"]).default("none"),
  tokens: z
    .record(z.string(), TOKEN)
    .refine((tokens) => Object.keys(tokens).every((id) => /^[0-9a-f]{12}$/.test(id)), {
      error: "expected ids of 12 hex digits",
    })
    .default({}),
});

/**
 * Parses an auth file.
 *
 * @throws CastoreError `invalid_argument` for anything that is not one. The message repeats no hash
 */
export async function parseAuthRules(file: TomlFile): Promise<AuthRules> {
  const document = parseToml(file);
  const result = AUTH_FILE.safeParse(document);
  if (!result.success) {
    const { path, reason } = refusalOf(result.error, AUTH_FILE, document);
    throw await tomlError(file, path, reason);
  }
  const { anonymous, tokens } = result.data;
  const rules = Object.entries(tokens).map(
    ([id, { store_names: storeNames, expires: expiresMs, ...rest }]) =>
      [id, { id, ...rest, storeNames, expiresMs }] as const,
  );
  return { anonymousReads: anonymous === "read", tokens: new Map(rules) };
}
