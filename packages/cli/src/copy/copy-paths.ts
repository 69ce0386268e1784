import { type AbortOptions, type CompositionOptions, hasCode } from "@tvix/castore";
import { findPaths, hashPartOfName, PathCopier, type PathMetadata } from "@tvix/store";
import { importJob } from "../import/import-job.ts";
import { runJobs } from "../import/jobs.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ProgressOptions } from "../options/progress-option.ts";
import { type StoreModeOptions, useStoreMode } from "../options/store-mode.ts";
import { openServices, type Services } from "../services.ts";
import { objectArgument } from "../stored/object-argument.ts";
import { startTracing, traceCommand } from "../telemetry/tracing.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { tellStoreEvents } from "../terminal/notices.ts";
import { openProgress } from "../terminal/progress.ts";
import { readReferenceGraph } from "./reference-graph.ts";
import { openSource, servicesAt } from "./store-address.ts";

/** Options of {@link copyPaths} about what is copied, and how. */
export interface CopyCommandOptions {
  /** Address of the store to copy from. Default: the local Nix. */
  from?: string;
  /** Address of the store to copy to. Default: the services of the other options. */
  to?: string;
  /** Whether to copy what the store paths refer to as well. Default: false. */
  closure?: boolean;
  /** Whether to tell only what would be copied. Default: false. */
  dryRun?: boolean;
  /** Level of zstd for what is compressed to be sent to a daemon. Default: 3. */
  zstdLevel?: number;
  /** Whether to print an object of JSON for each store path. Default: false, the store path. */
  json?: boolean;
}

/** How many store paths are copied at the same time. */
const CONCURRENCY = 4;

/**
 * Copies store paths from one store to another and prints those that were copied on stdout, each behind what it refers to.
 *
 * @param names the store paths; the path of a reference graph if neither store is named
 */
export async function copyPaths(
  names: readonly string[],
  options: ServiceOptions &
    StoreModeOptions &
    TracingOptions &
    ProgressOptions &
    CopyCommandOptions,
  { signal }: Interrupt,
): Promise<void> {
  using progress = await openProgress(options);
  const tell = (message: string) => progress.tell(message, "error");
  await using _tracing = await startTracing(options, (message) => progress.tell(message));
  useStoreMode(options);
  await traceCommand("tvix-store copy", async () => {
    const { from = "local", to } = options;
    const isGraph = options.from === undefined && to === undefined;
    const opening = {
      signal,
      onEvent: tellStoreEvents((message, level) => progress.tell(message, level)),
    };
    const graph = isGraph ? await readReferenceGraph(names[0]!) : undefined;
    const wanted =
      graph?.hashParts ?? names.map((name) => hashPartOfName(objectArgument(name), "copy"));
    const targetAddresses = to === undefined ? options : servicesAt(to); // a mistake in it is told first
    await using source = graph ?? (await openSource(from, opening));
    await using target = options.dryRun
      ? await openAsItIs(targetAddresses, opening)
      : await openServices(targetAddresses, {
          ...opening,
          readOnly: "refuse",
          option: to === undefined ? undefined : "--to",
        });
    const copier = new PathCopier(source, target);
    const paths = await findPaths(source, wanted, { closure: options.closure, signal });
    const present = await copier.present(paths, { signal });
    for (const [i, path] of paths.entries()) {
      const there = present[i];
      if (there && !options.dryRun) await copier.addSignatures(path, there, { signal });
    }
    const lacking = paths.filter((_, i) => present[i] === undefined);
    if (options.dryRun) {
      await runJobs(
        lacking.map((path) => ({ run: async () => describe(path, options) })),
        {
          ...{ signal, tell, concurrency: CONCURRENCY, things: "store paths" },
        },
      );
      progress.tell(summaryOf(lacking, paths.length), "info");
      return;
    }
    const bytes = Number(lacking.reduce((sum, { narSize }) => sum + narSize, 0n));
    progress.expect({ things: lacking.length, bytes });
    const { json, zstdLevel } = options;
    const jobs = lacking.map((path) =>
      importJob(
        path.storePath.toAbsolutePath(),
        (options) => copier.copy(path, { ...options, zstdLevel }),
        { progress, json },
      ),
    );
    await runJobs(jobs, { signal, tell, concurrency: CONCURRENCY, things: "store paths" });
  });
}

/** Opens the target of `--dry-run`, which creates none: one that does not exist is like one that is empty. */
async function openAsItIs(
  addresses: ServiceOptions,
  options: AbortOptions & CompositionOptions,
): Promise<Services> {
  try {
    return await openServices(addresses, { ...options, create: false });
  } catch (error) {
    if (!hasCode(error, "not_found")) throw error;
    const empty = "memory://";
    return await openServices({
      blobServiceAddr: empty,
      directoryServiceAddr: empty,
      pathInfoServiceAddr: empty,
    });
  }
}

/** Returns the line of `--dry-run` about a store path. */
function describe({ storePath, narSize }: PathMetadata, { json }: CopyCommandOptions): string {
  const name = storePath.toAbsolutePath();
  if (!json) return `${name}\t${narSize}\n`;
  return `${JSON.stringify({ storePath: name, narSize: Number(narSize) })}\n`;
}

function summaryOf(lacking: readonly PathMetadata[], count: number): string {
  const bytes = lacking.reduce((sum, { narSize }) => sum + narSize, 0n);
  return `would copy ${lacking.length} of ${count} store paths, NARs of ${bytes} bytes; the target has the others`;
}
