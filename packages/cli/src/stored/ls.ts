import type { AbortOptions, DirectoryService, Node } from "@tvix/castore";
import {
  findObject,
  formatObjectName,
  type ObjectName,
  StoreError,
  type TreePlace,
  type TreeStep,
  walkTree,
} from "@tvix/store";
import { escapeBytes } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { objectArgument } from "./object-argument.ts";
import { shownName } from "./shown-name.ts";
import { TextOutput } from "./text-output.ts";
import { forEachArgument, withServices } from "./with-services.ts";

/** Options of {@link ls} about what is listed, and how. */
export interface ListOptions {
  /** Whether to print type, execute bit, size and target. Default: false. */
  long?: boolean;
  /** Whether to list what is in the folders below. Default: false. */
  recursive?: boolean;
  /** Whether to list a folder itself in place of what is in it. Default: false. */
  directory?: boolean;
  /** Whether lines end with a NUL byte in place of a newline. Default: false. */
  null?: boolean;
  /** Whether to print JSON. Default: false. */
  json?: boolean;
}

/** Lists objects on stdout, in the text or the JSON of `nix store ls`. */
export async function ls(
  objects: readonly string[],
  options: ServiceOptions & TracingOptions & ListOptions,
  { signal }: Interrupt,
): Promise<void> {
  const { long, recursive, directory, null: nul, json, ...storeOptions } = options;
  const end = nul ? "\0" : "\n";
  const output = new TextOutput({ signal });
  let listed = 0;
  await withServices("ls", storeOptions, { signal }, async (services) => {
    await forEachArgument(objects, async (argument) => {
      const { name, node } = await findObject(objectArgument(argument), services, { signal });
      const steps = stepsOf(node, services.directoryService, { recursive, directory, signal });
      try {
        if (json) {
          await writeJson(steps, output);
        } else {
          const heading = Buffer.from(formatObjectName(name));
          if (listed > 0) await output.write(end);
          if (objects.length > 1) await output.write(shownName(heading), ":", end);
          await writeLines(steps, lastName(name), { long, end }, output);
        }
        listed += 1;
      } finally {
        await output.flush();
      }
    });
  });
}

/** A step of a listing. `closed` is a folder that is listed without what is in it. */
type ListStep = TreeStep | { readonly type: "closed"; readonly place: TreePlace };

async function* stepsOf(
  node: Node,
  directoryService: DirectoryService,
  {
    recursive,
    directory: itself,
    signal,
  }: Pick<ListOptions, "recursive" | "directory"> & AbortOptions,
): AsyncGenerator<ListStep> {
  if (node.type !== "directory") return yield* walkTree(node, directoryService, { signal });
  if (itself && !recursive) return yield { type: "closed", place: undefined };
  if (recursive) return yield* walkTree(node, directoryService, { signal });
  const directory = await directoryService.get(node.digest, { signal });
  if (directory === undefined) {
    throw new StoreError("not_found", `Cannot list directory ${node.digest}: it is missing`);
  }
  yield { type: "enter", place: undefined };
  for (const { name, node } of directory.entries) {
    const place: TreePlace = { name, parent: undefined };
    if (node.type === "file") yield { type: "file", place, file: node };
    else if (node.type === "symlink") yield { type: "symlink", place, target: node.target };
    else yield { type: "closed", place };
  }
  yield { type: "leave" };
}

/** Writes a line for each node; none for a folder at the root of which the entries are listed. */
async function writeLines(
  steps: AsyncIterable<ListStep>,
  rootName: Uint8Array,
  { long, end }: { long: boolean | undefined; end: string },
  output: TextOutput,
): Promise<void> {
  for await (const step of steps) {
    if (step.type === "leave" || (step.type === "enter" && step.place === undefined)) continue;
    const { place } = step;
    const isRoot = place === undefined;
    const name = isRoot ? (step.type === "closed" ? DOT : rootName) : pathOf(place);
    if (!long) {
      await output.write(shownName(name), end);
      continue;
    }
    const size = step.type === "file" ? step.file.size : 0n;
    await output.write(`${modeOf(step)} ${`${size}`.padStart(20)} `, shownName(name));
    if (step.type === "symlink") await output.write(" -> ", shownName(step.target));
    await output.write(end);
  }
}

const DOT = Buffer.from(".");
const SLASH = Buffer.from("/");

/** Returns the path of a node below the root, which is `.`. */
function pathOf(place: TreePlace): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = place; at !== undefined; at = at.parent) parts.push(at.name, SLASH);
  return Buffer.concat([...parts, DOT].reverse());
}

function modeOf(step: Exclude<ListStep, { readonly type: "leave" }>): string {
  switch (step.type) {
    case "file":
      return step.file.executable ? "-r-xr-xr-x" : "-r--r--r--";
    case "symlink":
      return "lrwxrwxrwx";
    default:
      return "dr-xr-xr-x";
  }
}

/** Returns the last name of an object. */
function lastName({ root, path }: ObjectName): Uint8Array {
  const [last] = path.slice(-1);
  if (last !== undefined) return last;
  return Buffer.from(
    root.type === "store path" ? `${root.storePath}` : formatObjectName({ root, path }),
  );
}

/** Writes a listing as Nix does: keys in the order of their characters, in one line. */
async function writeJson(steps: AsyncIterable<ListStep>, output: TextOutput): Promise<void> {
  let isFirst = true;
  for await (const step of steps) {
    if (step.type === "leave") {
      await output.write('},"type":"directory"}');
      isFirst = false;
      continue;
    }
    if (step.place !== undefined) {
      const key = JSON.stringify(escapeBytes(Buffer.from(step.place.name)));
      await output.write(isFirst ? `${key}:` : `,${key}:`);
    }
    await output.write(jsonOf(step));
    isFirst = step.type === "enter";
  }
  await output.write("\n");
}

/** Returns the JSON of a node; of a folder that is entered, what comes before its entries. */
function jsonOf(step: Exclude<ListStep, { readonly type: "leave" }>): string {
  switch (step.type) {
    case "enter":
      return '{"entries":{';
    case "closed":
      return '{"type":"directory"}';
    case "symlink":
      return `{"target":${JSON.stringify(escapeBytes(Buffer.from(step.target)))},"type":"symlink"}`;
    case "file": {
      const executable = step.file.executable ? '"executable":true,' : "";
      return `{${executable}"size":${step.file.size},"type":"regular"}`;
    }
  }
}
