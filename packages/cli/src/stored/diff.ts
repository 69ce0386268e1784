import { compareTrees, type Node, quoteBytes, type TreeDifference } from "@tvix/castore";
import { findObject } from "@tvix/store";
import { escapeBytes } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { nodeJson } from "./node-json.ts";
import { objectArgument } from "./object-argument.ts";
import { shownName } from "./shown-name.ts";
import { TextOutput } from "./text-output.ts";
import { withServices } from "./with-services.ts";

/** Options of {@link diff} about what is printed. */
export interface DiffOptions {
  /** Whether to print JSON. Default: false. */
  json?: boolean;
}

/** Compares two trees, and prints the differences on stdout. Returns whether there are any. */
export async function diff(
  a: string,
  b: string,
  { json, ...options }: ServiceOptions & TracingOptions & DiffOptions,
  { signal }: Interrupt,
): Promise<boolean> {
  let count = 0;
  await withServices("diff", options, { signal }, async (services) => {
    const before = await findObject(objectArgument(a), services, { signal });
    const after = await findObject(objectArgument(b), services, { signal });
    const output = new TextOutput({ signal });
    const found = compareTrees(before.node, after.node, services.directoryService, { signal });
    for await (const difference of found) {
      if (json) await output.write(count === 0 ? "[\n" : ",\n", jsonOf(difference));
      else await writeLine(difference, output);
      count += 1;
    }
    if (json) await output.write(count === 0 ? "[]\n" : "\n]\n");
    await output.flush();
  });
  return count > 0;
}

/** Writes a line: a sign, the path, and what is there or changed. */
async function writeLine(difference: TreeDifference, output: TextOutput): Promise<void> {
  const { before, after } = difference;
  const sign = before === undefined ? "+" : after === undefined ? "-" : "~";
  const isFolder =
    before !== undefined && after !== undefined ? false : (before ?? after)?.type === "directory";
  const changes = before && after ? describeChange(before, after) : describe((before ?? after)!);
  const end = changes === "" ? "\n" : `  ${changes}\n`;
  await output.write(`${sign} `, shownName(pathOf(difference)), isFolder ? "/" : "", end);
}

/** Returns the path of a difference, `.` for the root. */
function pathOf({ path }: TreeDifference): Buffer {
  return path.length === 0 ? Buffer.from(".") : joined(path);
}

function joined(path: readonly Uint8Array[]): Buffer {
  return Buffer.concat(path.flatMap((name, i) => (i === 0 ? [name] : [SLASH, name])));
}

const SLASH = Buffer.from("/");

/** Describes what one tree has: the size of a file, the target of a symlink, nothing for a folder. */
function describe(node: Node): string {
  switch (node.type) {
    case "directory":
      return "";
    case "symlink":
      return `-> ${quoteBytes(node.target)}`;
    case "file":
      return `${node.size} bytes${node.executable ? ", executable" : ""}`;
  }
}

/** Describes what is different between two nodes at the same path. */
function describeChange(before: Node, after: Node): string {
  if (before.type === "file" && after.type === "file") {
    const changes = [];
    if (!before.digest.equals(after.digest)) changes.push(`${before.size} -> ${after.size} bytes`);
    if (after.executable && !before.executable) changes.push("executable");
    if (before.executable && !after.executable) changes.push("not executable");
    return changes.join(", ");
  }
  if (before.type === "symlink" && after.type === "symlink") {
    return `${describe(after)}, before ${describe(before)}`;
  }
  const [one, other] = [before, after].map((node) =>
    node.type === "directory" ? "folder" : `${node.type} (${describe(node)})`,
  );
  return `${one} -> ${other}`;
}

function jsonOf({ path, before, after }: TreeDifference): string {
  return JSON.stringify({
    path: escapeBytes(joined(path)),
    before: before === undefined ? null : sizedJson(before),
    after: after === undefined ? null : sizedJson(after),
  });
}

function sizedJson(node: Node): Readonly<Record<string, unknown>> {
  return { ...nodeJson(node), ...(node.type === "file" && { size: Number(node.size) }) };
}
