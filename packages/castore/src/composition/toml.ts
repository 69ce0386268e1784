import { parse, TomlError, type TomlTable } from "smol-toml";
import { z } from "zod";
import { CastoreError } from "../model/errors.ts";
import type { NamedServices } from "./opener.ts";

const SERVICE = z.looseObject({ type: z.string() });

/**
 * Parses the TOML that describes a composition.
 *
 * @param kinds names of the tables with services
 * @param others names of other allowed tables, which are not looked at
 * @throws CastoreError `invalid_argument` for malformed TOML, for other tables, and for services without a type
 */
export function parseComposition(
  text: string,
  kinds: readonly string[],
  others: readonly string[] = [],
): NamedServices {
  const tables = z.strictObject(
    Object.fromEntries(kinds.map((kind) => [kind, z.record(z.string(), SERVICE).optional()])),
  );
  let document: TomlTable;
  try {
    document = parse(text);
    for (const name of others) delete document[name];
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The rest of the message and the cause quote the file, which may contain secrets.
    throw refusal(`expected TOML, found none at line ${error.line}, column ${error.column}`);
  }
  const result = tables.safeParse(document);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.length ? `[${issue.path.join(".")}]: ` : "";
  const there =
    issue?.code === "unrecognized_keys" ? `, expected ${[...kinds, ...others].join(", ")}` : "";
  throw refusal(`${where}${issue?.message}${there}`);
}

function refusal(reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use store composition: ${reason}`);
}
