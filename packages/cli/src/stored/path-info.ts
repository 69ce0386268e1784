import {
  encodeNixbase32,
  formatContentAddress,
  formatNixHash,
  formatSignature,
  nixHash,
  type PathInfo,
  type PathInfoService,
  STORE_DIR,
} from "@tvix/store";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { ClosureSizes } from "./closure-sizes.ts";
import { nodeJson } from "./node-json.ts";
import { findClosure, lookUpStorePaths } from "./store-path-arguments.ts";
import { TextOutput } from "./text-output.ts";
import { withServices } from "./with-services.ts";

/** Options of {@link pathInfo} about what is printed. */
export interface PathInfoOptions {
  /** Whether to print all store paths. Default: false. */
  all?: boolean;
  /** Whether to print what they refer to. Default: false. */
  closure?: boolean;
  /** Whether to print the length of the NAR. Default: false. */
  size?: boolean;
  /** Whether to print the length of the NARs of the closure. Default: false. */
  closureSize?: boolean;
  /** Whether to print the content address and signatures. Default: false. */
  sigs?: boolean;
  /** Whether to print JSON. Default: false. */
  json?: boolean;
}

/** Prints what is known about store paths on stdout, in the text or the JSON of `nix path-info`. */
export async function pathInfo(
  args: readonly string[],
  options: ServiceOptions & TracingOptions & PathInfoOptions,
  { signal }: Interrupt,
): Promise<void> {
  const { all, closure, size, closureSize, sigs, json, ...storeOptions } = options;
  await withServices("path-info", storeOptions, { signal }, async ({ pathInfoService }) => {
    const found = all ? [] : await lookUpStorePaths(args, pathInfoService, { signal });
    const listed = all && (closure || closureSize) ? await listAll(pathInfoService, signal) : [];
    const named = [...new Map([...found, ...listed].flatMap(keyed)).values()];
    const graph =
      closure || closureSize ? await findClosure(named, pathInfoService, { signal }) : [];
    const sizes = closureSize ? new ClosureSizes(graph) : undefined;
    const printed = closure
      ? graph
      : listed.length > 0 || !all
        ? named
        : pathInfoService.list({ signal });
    const output = new TextOutput({ signal });
    if (json) {
      const absent = args.filter((_, i) => !all && found[i] === undefined);
      await writeJson(printed, absent, sizes, output);
    } else {
      const names = Array.isArray(printed) ? printed.map(nameOf) : []; // a listing is not held for its width
      const width = size || sizes || sigs ? names.reduce(longer, 0) : 0;
      for await (const path of printed) {
        const columns = [
          nameOf(path).padEnd(width),
          ...(size ? [`${path.narSize}`.padStart(11)] : []),
          ...(sizes ? [`${sizes.of(path)}`.padStart(11)] : []),
          ...(sigs ? [describeSignatures(path)] : []),
        ];
        await output.write(`${columns.join("\t")}\n`);
      }
    }
    await output.flush();
  });
}

function longer(width: number, { length }: string): number {
  return Math.max(width, length);
}

function nameOf({ storePath }: PathInfo): string {
  return storePath.toAbsolutePath();
}

function keyed(path: PathInfo | undefined): [string, PathInfo][] {
  return path === undefined ? [] : [[encodeNixbase32(path.storePath.hashPart), path]];
}

async function listAll(pathInfoService: PathInfoService, signal: AbortSignal): Promise<PathInfo[]> {
  return await Array.fromAsync(pathInfoService.list({ signal }));
}

/** Returns the content address and the signatures as Nix shows them. */
function describeSignatures({ ca, signatures }: PathInfo): string {
  const parts = signatures.map(formatSignature);
  return (ca === undefined ? parts : [`ca:${formatContentAddress(ca)}`, ...parts]).join(" ");
}

/** Writes one object, a line a store path. */
async function writeJson(
  paths: AsyncIterable<PathInfo> | readonly PathInfo[],
  absent: readonly string[],
  sizes: ClosureSizes | undefined,
  output: TextOutput,
): Promise<void> {
  let separator = "{\n";
  const write = async (key: string, value: unknown) => {
    await output.write(`${separator}${JSON.stringify(key)}:${JSON.stringify(value)}`);
    separator = ",\n";
  };
  for await (const path of paths) {
    const closureSize = sizes && Number(sizes.of(path));
    await write(nameOf(path), { ...describe(path), closureSize });
  }
  for (const argument of absent) await write(argument, null);
  await output.write(separator === "{\n" ? "{}\n" : "\n}\n");
}

/** Describes a store path with the keys of Nix, and its root node. */
function describe(path: PathInfo): Readonly<Record<string, unknown>> {
  const { ca, deriver, narSha256, narSize, node, references, signatures } = path;
  return {
    ca: ca === undefined ? null : formatContentAddress(ca),
    deriver: deriver === undefined ? null : `${deriver.toAbsolutePath()}.drv`,
    narHash: formatNixHash(nixHash("sha256", narSha256), "sri"),
    narSize: Number(narSize),
    references: references.map((reference) => reference.toAbsolutePath()),
    root: nodeJson(node),
    signatures: signatures.map(formatSignature),
    storeDir: STORE_DIR,
  };
}
