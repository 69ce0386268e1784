import { z } from "zod";
import { refusalOf } from "../address/schema-refusal.ts";
import type { NamedServices } from "./opener.ts";
import { parseToml, type TomlFile, tomlError } from "./toml-file.ts";

const SERVICE = z.looseObject({ type: z.string() });

/**
 * Parses the TOML that describes a composition.
 *
 * @param kinds names of the tables with services
 * @param others names of other allowed tables, which are not looked at
 * @throws CastoreError `invalid_argument` for malformed TOML, for other tables, and for services without a type
 */
export async function parseComposition(
  file: TomlFile,
  kinds: readonly string[],
  others: readonly string[] = [],
): Promise<NamedServices> {
  const services = z.record(z.string(), SERVICE).optional();
  const tables = z.strictObject({
    ...Object.fromEntries(kinds.map((kind) => [kind, services])),
    ...Object.fromEntries(others.map((name) => [name, z.unknown().optional()])),
  });
  const document = parseToml(file);
  const result = tables.safeParse(document);
  if (!result.success) {
    const { path, reason } = refusalOf(result.error, tables, document);
    throw await tomlError(file, path, reason);
  }
  const named = Object.entries(result.data).filter(([name]) => kinds.includes(name));
  return Object.fromEntries(named) as NamedServices;
}
