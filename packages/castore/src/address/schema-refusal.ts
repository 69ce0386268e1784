import type { z } from "zod";
import { suggest } from "../model/nearest.ts";

/** Why a schema refused a value. */
export interface SchemaRefusal {
  /** Names of the tables and the key that the reason is about. */
  readonly path: readonly PropertyKey[];
  /** Names the key. It repeats no value, which may be a secret. */
  readonly reason: string;
}

/** What is known of the inner parts of a schema. */
interface Definition {
  readonly type: string;
  readonly shape?: Readonly<Record<string, z.ZodType>>;
  readonly in?: z.ZodType;
  readonly out?: z.ZodType;
  readonly innerType?: z.ZodType;
  readonly valueType?: z.ZodType;
  readonly element?: z.ZodType;
}

/**
 * Returns why a schema refused a value: an unknown key, which may be a mistyped one that is missing, or else the first reason.
 *
 * @param hidden keys that nobody can give, and that are not listed among the valid ones
 */
export function refusalOf(
  error: z.ZodError,
  schema: z.ZodType,
  value: unknown,
  hidden: readonly string[] = [],
): SchemaRefusal {
  const isUnknownKey = ({ code }: z.core.$ZodIssue) => code === "unrecognized_keys";
  const issue = error.issues.find(isUnknownKey) ?? error.issues[0]!;
  if (issue.code === "unrecognized_keys") {
    const [key = ""] = issue.keys;
    const valid = keysOf(schema, issue.path).filter((key) => !hidden.includes(key));
    return { path: [...issue.path, key], reason: `unknown key "${key}": ${suggest(key, valid)}` };
  }
  const key = issue.path.map(String).join(".");
  const found = issue.path.reduce<unknown>(
    (value, name) => (value as Record<PropertyKey, unknown> | undefined)?.[name],
    value,
  );
  if (found === undefined && key !== "") {
    return { path: issue.path, reason: `expected key "${key}", found none` };
  }
  const reason =
    issue.code === "invalid_value" && typeof found === "string"
      ? suggest(found, issue.values.map(String))
      : issue.message
          .replace(/^Invalid \w+: /, "")
          .replace("received", "found")
          .replace("expected record", "expected table");
  return { path: issue.path, reason: key === "" ? reason : `key "${key}": ${reason}` };
}

/** Returns the keys of the object that a schema has at a path. */
function keysOf(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  const { type, shape = {}, ...inner } = schema.def as unknown as Definition;
  if (type === "object") {
    const [name, ...rest] = path;
    if (name === undefined) return Object.keys(shape);
    const below = shape[String(name)];
    return below === undefined ? [] : keysOf(below, rest);
  }
  // A pipe is a schema between two conversions: the side that has keys is the schema.
  const isPipe = type === "pipe";
  const sides = isPipe ? [inner.in, inner.out] : [inner.innerType];
  const entry = inner.valueType ?? inner.element;
  if (entry !== undefined) return keysOf(entry, path.slice(1));
  return sides.flatMap((side) => (side === undefined ? [] : keysOf(side, path)));
}
