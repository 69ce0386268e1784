import { parse, TomlError, type TomlTable } from "smol-toml";
import type { AST } from "toml-eslint-parser";
import { CastoreError } from "../model/errors.ts";

/** A TOML file, for messages about it. */
export interface TomlFile {
  /** What it is, and its path in quotes if it has one, such as `auth file "/etc/auth.toml"`. */
  readonly name: string;
  readonly text: string;
}

/** A place in a file. Both count from 1. */
interface Position {
  readonly line: number;
  readonly column: number;
}

/**
 * Parses a TOML file.
 *
 * @throws CastoreError `invalid_argument` with line and column. It quotes nothing, as the file may contain secrets
 */
export function parseToml({ name, text }: TomlFile): TomlTable {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const { line, column } = error; // the rest of the message and the cause quote the file
    throw new CastoreError(
      "invalid_argument",
      `Cannot use ${name}: line ${line}, column ${column}: expected TOML, found none`,
    );
  }
}

/**
 * Returns the error for a key or a value of a TOML file, with its line and column.
 *
 * @param path names of the tables and the key; where there is no such key, the position of the table is told
 */
export async function tomlError(
  { name, text }: TomlFile,
  path: readonly PropertyKey[],
  reason: string,
): Promise<CastoreError> {
  const position = await positionOf(text, path.map(String));
  const where = position ? `line ${position.line}, column ${position.column}: ` : "";
  return new CastoreError("invalid_argument", `Cannot use ${name}: ${where}${reason}`);
}

/** Returns the position of a key, or of the innermost table around it; `undefined` if there is neither. */
async function positionOf(text: string, path: readonly string[]): Promise<Position | undefined> {
  const { parseTOML } = await import("toml-eslint-parser"); // needed for errors alone
  const [top] = parseTOML(text).body;
  const positions = new Map<string, Position>();
  notePositions(top.body, [], positions);
  for (let length = path.length; length > 0; length--) {
    const position = positions.get(JSON.stringify(path.slice(0, length)));
    if (position !== undefined) return position;
  }
  return undefined;
}

/** Notes where each key and each table begins, by its path. */
function notePositions(
  nodes: readonly (AST.TOMLTable | AST.TOMLKeyValue)[],
  parent: readonly string[],
  positions: Map<string, Position>,
): void {
  for (const node of nodes) {
    const { line, column } = node.loc.start;
    const names =
      node.type === "TOMLTable"
        ? node.resolvedKey.map(String)
        : [...parent, ...node.key.keys.map(nameOf)];
    for (let length = 1; length <= names.length; length++) {
      const key = JSON.stringify(names.slice(0, length));
      if (!positions.has(key)) positions.set(key, { line, column: column + 1 });
    }
    if (node.type === "TOMLTable") notePositions(node.body, names, positions);
    else if (node.value.type === "TOMLInlineTable")
      notePositions(node.value.body, names, positions);
  }
}

function nameOf(key: AST.TOMLBare | AST.TOMLQuoted): string {
  return key.type === "TOMLBare" ? key.name : key.value;
}
