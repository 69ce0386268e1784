import { type DiskUsage, DiskUsageMeter } from "@tvix/store";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ProgressOptions } from "../options/progress-option.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import type { NoticeLevel } from "../terminal/notices.ts";
import { writeStdout } from "../terminal/output.ts";
import { openProgress } from "../terminal/progress.ts";
import { findClosure, lookUpStorePaths } from "./store-path-arguments.ts";
import { withServices } from "./with-services.ts";

/** Options of {@link du} about what is counted and printed. */
export interface UsageOptions {
  /** Whether to count what store paths refer to. Default: false. */
  closure?: boolean;
  /** Whether to print JSON. Default: false. */
  json?: boolean;
}

/** A row of the output. */
interface Row extends DiskUsage {
  readonly name: string;
  /** Length of the NARs in bytes. */
  readonly logical: number;
}

/** Prints how much of the store contents of store paths take on stdout. */
export async function du(
  args: readonly string[],
  { closure, json, ...options }: ServiceOptions & TracingOptions & ProgressOptions & UsageOptions,
  { signal }: Interrupt,
): Promise<void> {
  using progress = await openProgress(options);
  const tell = (message: string, level: NoticeLevel) => progress.tell(message, level);
  await withServices("du", options, { signal, tell }, async (services) => {
    const { pathInfoService } = services;
    const found = await lookUpStorePaths(args, pathInfoService, { signal });
    const named = new Map(found.flatMap((path) => (path ? [[`${path.storePath}`, path]] : [])));
    progress.expect({ things: named.size });
    const meter = new DiskUsageMeter(services);
    const logical: number[] = [];
    for (const path of named.values()) {
      using task = progress.begin(path.storePath.toAbsolutePath());
      const paths = closure ? await findClosure([path], pathInfoService, { signal }) : [path];
      logical.push(paths.reduce((sum, { narSize }) => sum + Number(narSize), 0));
      await meter.add(
        paths.map(({ node }) => node),
        { signal, onBlobs: (entries, bytes) => task.update({ entries, bytes }) },
      );
      task.finish();
    }
    const usages = meter.groups;
    const rows = [...named.values()].map(({ storePath }, i) => ({
      name: storePath.toAbsolutePath(),
      logical: logical[i]!,
      ...usages[i]!,
    }));
    const total = { name: "total", logical: logical.reduce((a, b) => a + b, 0), ...meter.total };
    if (!json && total.compressed === undefined) {
      const others = "packs do, also behind a daemon, and object stores that this command opens";
      tell(`the store does not tell what its chunks take when compressed; ${others}`, "info");
    }
    if (json) await writeStdout(jsonOf(rows, total), { signal });
    else if (rows.length > 0) await writeStdout(tableOf(rows, total), { signal });
  });
}

function jsonOf(rows: readonly Row[], total: Row): string {
  const paths = Object.fromEntries(rows.map(({ name, ...usage }) => [name, told(usage)]));
  const { shared: _, name: __, ...sums } = total;
  return `${JSON.stringify({ paths, total: told(sums) })}\n`;
}

/** Returns sizes for JSON, where `null` is an unknown one. */
function told(sizes: Readonly<Record<string, number | undefined>>) {
  return Object.fromEntries(Object.entries(sizes).map(([key, size]) => [key, size ?? null]));
}

/** Returns a table, with the total as its last line if there are several rows. */
function tableOf(rows: readonly Row[], total: Row): string {
  const lines = [
    ["LOGICAL", "DEDUPLICATED", "COMPRESSED", "SHARED", ""],
    ...rows.map(cellsOf),
    ...(rows.length > 1 ? [[...cellsOf(total).slice(0, 3), "", total.name]] : []),
  ];
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const text = lines.map((line) =>
    line
      .map((cell, i) => (i === 4 ? cell : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
  return `${text.join("\n")}\n`;
}

function cellsOf({ name, logical, deduplicated, compressed, shared }: Row): string[] {
  return [...[logical, deduplicated, compressed, shared].map(formatSize), name];
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Returns a number of bytes in a unit that leaves at most four digits before the point. */
function formatSize(bytes: number | undefined): string {
  if (bytes === undefined) return "-";
  let [size, unit] = [bytes, 0];
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
  return `${unit === 0 ? size : size.toFixed(1)} ${UNITS[unit]}`;
}
