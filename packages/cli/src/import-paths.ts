import { statSync } from "node:fs";
import { basename } from "node:path";
import {
  type EntryFilter,
  type ImportProgress,
  type MemberSelection,
  startLanes,
} from "@tvix/castore";
import { importArchive, importPath, type PathInfo, type ReferenceCandidates } from "@tvix/store";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import { type ImportedPath, reportImport } from "./import-report.ts";
import type { Interrupt } from "./interrupt.ts";
import { type Job, runJobs } from "./jobs.ts";
import { openProgress, type Progress } from "./progress.ts";
import { findCandidates } from "./reference-candidates.ts";
import { openServices, type Services } from "./services.ts";
import { startTracing, traceCommand } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";

/** Options of {@link importPaths} about what is imported, and how. */
export interface ImportCommandOptions {
  /** Path of a tar archive to import instead of paths; `-` is stdin. */
  archive?: string;
  /** Name in the store. Default: the last name of the path, for an archive without its ending, such as `.tar.gz`. */
  name?: string;
  /** `auto`, `none`, or a file that lists store paths. `true` is `auto`. Default: `none`. */
  references?: string | true;
  /** How many names at the start of the paths in the archive are dropped. Default: 0. */
  stripComponents?: number;
  /** Globs of what is left out. */
  exclude?: readonly string[];
  /** Whether to print an object of JSON a path. Default: false, its store path. */
  json?: boolean;
}

/** How many paths are imported at the same time: each keeps all lanes busy while it reads, but not while it ends. */
const CONCURRENCY = 2;

/** Options that every import of a command gets. */
interface CommonOptions extends MemberSelection {
  name?: string;
  signal: AbortSignal;
  references?: ReferenceCandidates;
  onProgress: (progress: ImportProgress) => void;
}

/** Imports paths or an archive, and prints the store path of each on stdout, in order. */
export async function importPaths(
  paths: readonly string[],
  options: ServiceOptions & TracingOptions & ImportCommandOptions,
  { signal }: Interrupt,
): Promise<void> {
  if (paths.some(isFolder)) startLanes(); // while stores are opened
  using progress = await openProgress();
  const tell = (message: string) => progress.tell(message);
  await using _tracing = await startTracing(options, tell);
  await traceCommand("tvix-store import", async () => {
    await using services = await openServices(options, {
      signal,
      onEvent: ({ store, message }) => tell(`${store}: ${message}`),
    });
    await new ImportCommand(services, options, progress).run(paths, signal);
  });
}

class ImportCommand {
  readonly #services: Services;
  readonly #options: ImportCommandOptions;
  readonly #progress: Progress;
  #exclude: EntryFilter | undefined;

  constructor(services: Services, options: ImportCommandOptions, progress: Progress) {
    this.#services = services;
    this.#options = options;
    this.#progress = progress;
  }

  async run(paths: readonly string[], signal: AbortSignal): Promise<void> {
    const { archive, exclude, references: mode = "none" } = this.#options;
    if (exclude !== undefined) {
      const { excludeFilter } = await import("./exclude.ts"); // has a library of its own
      this.#exclude = excludeFilter(exclude);
    }
    const what = mode === true ? "auto" : mode;
    const candidates =
      what === "none"
        ? undefined
        : await findCandidates(what, this.#services.pathInfoService, { signal });
    const importOne = async (source: string, run: Run, signal: AbortSignal): Promise<string> => {
      const imported = await this.#importOne(source, run, {
        signal,
        ...(candidates && { references: candidates.references }),
      });
      if (candidates?.grow) candidates.references.add(imported.pathInfo.storePath.hashPart);
      return this.#show(source, imported);
    };
    const jobs: Job[] = paths.map((path) => ({
      run: ({ signal }) =>
        importOne(
          path,
          (options) => importPath(absolutePath(path), this.#services, options),
          signal,
        ),
    }));
    if (archive !== undefined) {
      jobs.push({
        run: ({ signal }) =>
          importOne(archive, (options) => importTar(archive, this.#services, options), signal),
      });
    }
    await runJobs(jobs, {
      signal,
      concurrency: candidates?.grow ? 1 : CONCURRENCY, // a path may refer to any before it
      things: "paths",
      tell: (message) => this.#progress.tell(message),
    });
  }

  async #importOne(
    source: string,
    run: Run,
    options: Pick<CommonOptions, "signal" | "references">,
  ): Promise<ImportedPath> {
    const { name, stripComponents } = this.#options;
    using task = this.#progress.begin(source);
    let progress: ImportProgress = { entries: 0, bytes: 0, newBytes: undefined };
    const pathInfo = await run({
      ...options,
      ...(name !== undefined && { name }),
      ...(stripComponents !== undefined && { stripComponents }),
      ...(this.#exclude && { exclude: this.#exclude }),
      onProgress(now) {
        progress = now;
        task.update(now);
      },
    });
    return { pathInfo, progress };
  }

  #show(source: string, imported: ImportedPath): string {
    const { storePath, node } = imported.pathInfo;
    if (node.type === "symlink") this.#progress.tell(symlinkWarning(source, node.target));
    if (this.#options.json) return reportImport(source, imported);
    return `${storePath.toAbsolutePath()}\n`;
  }
}

type Run = (options: CommonOptions) => Promise<PathInfo>;

async function importTar(
  archive: string,
  services: Services,
  { name = nameOfArchive(archive), ...options }: CommonOptions,
): Promise<PathInfo> {
  if (archive !== "-") {
    return await importArchive(absolutePath(archive), services, { ...options, name });
  }
  try {
    return await importArchive(process.stdin, services, { ...options, name });
  } finally {
    process.stdin.destroy(); // an open stdin keeps the process alive
  }
}

/** Returns the name of a file without the ending of an archive, such as `.tar.gz` or `.tgz`. */
function nameOfArchive(path: string): string {
  return basename(path).replace(/(.)\.(tar(\.[a-z0-9]+)?|t(gz|az|xz|zst|bz2?|b2))$/i, "$1");
}

/** Returns the warning about an import of a bare symlink. */
function symlinkWarning(path: string, target: Uint8Array): string {
  const [from, to] = [path, Buffer.from(target).toString()].map((text) => JSON.stringify(text));
  return `warning: stored only the symlink ${from}, which points to ${to}; to store what it points to, give the path that "readlink -f" prints`;
}

/** Tells whether a path is that of a folder. */
function isFolder(path: string): boolean {
  return statSync(absolutePath(path), { throwIfNoEntry: false })?.isDirectory() ?? false;
}
