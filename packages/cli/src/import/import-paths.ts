import { basename } from "node:path";
import {
  CastoreError,
  type EntryFilter,
  type ImportProgress,
  type MemberSelection,
  shareLanes,
} from "@tvix/castore";
import { importArchive, importPath, type PathInfo, type ReferenceCandidates } from "@tvix/store";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ProgressOptions } from "../options/progress-option.ts";
import { type StoreModeOptions, useStoreMode } from "../options/store-mode.ts";
import { openServices, type Services } from "../services.ts";
import { startTracing, traceCommand } from "../telemetry/tracing.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { type NoticeLevel, tellStoreEvents } from "../terminal/notices.ts";
import { openProgress } from "../terminal/progress.ts";
import type { Progress } from "../terminal/progress-contract.ts";
import { type ImportAction, importJob } from "./import-job.ts";
import { type NixImport, NixImports } from "./import-nix-paths.ts";
import type { ImportSource } from "./import-record.ts";
import { type Job, runJobs } from "./jobs.ts";
import { KnownImports } from "./known-imports.ts";
import { type Candidates, findCandidates } from "./reference-candidates.ts";

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
  /** Whether to read also what has not changed since it was imported from the same path. Default: false. */
  reread?: boolean;
  /** Whether to import what a store path of the local Nix refers to as well. Default: false. */
  closure?: boolean;
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
  options: ServiceOptions &
    StoreModeOptions &
    TracingOptions &
    ProgressOptions &
    ImportCommandOptions,
  { signal }: Interrupt,
): Promise<void> {
  const { references = "none", reread } = options;
  // References depend on what the store has besides.
  const known = references === "none" ? new KnownImports({ reread }) : undefined;
  shareLanes();
  using progress = await openProgress(options);
  const tell = (message: string, level?: NoticeLevel) => progress.tell(message, level);
  await using _tracing = await startTracing(options, tell);
  useStoreMode(options);
  await traceCommand("tvix-store import", async () => {
    await using services = await openServices(options, {
      signal,
      readOnly: "refuse",
      onEvent: tellStoreEvents(tell),
    });
    await new ImportCommand(services, options, { progress, known }).run(paths, signal);
  });
}

class ImportCommand {
  readonly #services: Services;
  readonly #options: ImportCommandOptions;
  readonly #progress: Progress;
  readonly #known: KnownImports | undefined;
  /** Ends the forecast. */
  readonly #measuring = new AbortController();
  #candidates: Candidates | undefined;
  #exclude: EntryFilter | undefined;

  /** @param known remembers imports; absent where results depend on more than their sources */
  constructor(
    services: Services,
    options: ImportCommandOptions,
    { progress, known }: { progress: Progress; known: KnownImports | undefined },
  ) {
    this.#services = services;
    this.#options = options;
    this.#progress = progress;
    this.#known = known;
  }

  async run(paths: readonly string[], signal: AbortSignal): Promise<void> {
    const { archive, exclude, references = "none" } = this.#options;
    if (exclude !== undefined) {
      const { excludeFilter } = await import("./exclude.ts"); // has a library of its own
      this.#exclude = excludeFilter(exclude);
    }
    if (references !== "none") {
      const what = references === true ? "auto" : references;
      this.#candidates = await findCandidates(what, this.#services.pathInfoService, { signal });
    }
    const tell = (message: string) => this.#progress.tell(message);
    await using nix = new NixImports(this.#services, tell);
    using _stop = { [Symbol.dispose]: () => this.#measuring.abort() };
    const jobs: Job[] = [];
    for (const path of paths) jobs.push(...(await this.#jobsFor(path, nix, signal)));
    if (archive !== undefined) {
      const runTar = async ({ onProgress, ...options }: CommonOptions) => {
        let last: ImportProgress | undefined;
        const follow = (step: ImportProgress) => {
          last = step;
          onProgress(step);
        };
        const pathInfo = await importTar(archive, this.#services, {
          ...options,
          onProgress: follow,
        });
        const newBytes = await bytesAdded(this.#services);
        if (last !== undefined) onProgress({ ...last, newBytes });
        return pathInfo;
      };
      jobs.push(this.#plainJob(archive, runTar));
    }
    this.#progress.expect({ things: jobs.length });
    await runJobs(jobs, {
      signal,
      concurrency: this.#candidates?.grow ? 1 : CONCURRENCY, // a path may refer to any before it
      things: "paths",
      tell: (message) => this.#progress.tell(message, "error"),
    });
  }

  async #jobsFor(path: string, nix: NixImports, signal: AbortSignal): Promise<readonly Job[]> {
    const { name, exclude, references = "none", closure = false } = this.#options;
    const isPlain = name !== undefined || exclude !== undefined || references !== "none";
    try {
      const imports = isPlain ? undefined : await nix.list(path, { closure, signal });
      if (imports !== undefined) return imports.map((one) => this.#nixJob(one));
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      return [{ run: () => Promise.reject(error) }];
    }
    if (this.#progress.isShown) {
      const onBytes = (bytes: number) => this.#progress.expect({ bytes });
      const { measurePath } = await import("./measure-path.ts");
      const { signal } = this.#measuring;
      void measurePath(absolutePath(path), { exclude: this.#exclude, onBytes, signal });
    }
    return [this.#plainJob(path, (options) => this.#importPath(path, options))];
  }

  /** Imports a path, unless that was done before and nothing has changed. */
  async #importPath(path: string, options: CommonOptions): Promise<PathInfo> {
    const source = sourceOf(path, this.#options);
    const { signal, onProgress } = options;
    const filter = this.#exclude;
    const found = await this.#known?.find(source, this.#services, { filter, signal });
    if (found !== undefined) {
      onProgress({ entries: found.entries, bytes: 0, newBytes: 0 });
      return found.pathInfo;
    }
    const watched = this.#known?.begin(source);
    const pathInfo = await importPath(source.path, this.#services, {
      ...options,
      stamp: watched?.stamp,
    });
    watched?.finish(pathInfo);
    return pathInfo;
  }

  #nixJob({ source, narSize, run }: NixImport): Job {
    this.#progress.expect({ bytes: narSize });
    return this.#job(source, ({ signal, onProgress }) => run({ signal, onProgress }));
  }

  #plainJob(source: string, run: Run): Job {
    const { name, stripComponents } = this.#options;
    return this.#job(source, async (options) => {
      const pathInfo = await run({
        ...options,
        ...(name !== undefined && { name }),
        ...(stripComponents !== undefined && { stripComponents }),
        ...(this.#exclude && { exclude: this.#exclude }),
        ...(this.#candidates && { references: this.#candidates.references }),
      });
      const { storePath, node } = pathInfo;
      if (this.#candidates?.grow) this.#candidates.references.add(storePath.hashPart);
      if (node.type === "symlink") this.#progress.tell(symlinkWarning(source, node.target));
      return pathInfo;
    });
  }

  #job(source: string, action: ImportAction): Job {
    return importJob(source, action, { progress: this.#progress, json: this.#options.json });
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

/** Returns the length of the contents that were new in the stores of this process; `undefined` if they do not tell. */
async function bytesAdded(services: Services): Promise<number | undefined> {
  const told = (await services.statistics()).flatMap(({ bytesAdded = [] }) => bytesAdded);
  return told.length === 1 ? told[0] : undefined; // of a cache and its origin, they are not the same
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

/** Returns what an argument asks to import. */
function sourceOf(path: string, { name, exclude }: ImportCommandOptions): ImportSource {
  return { path: absolutePath(path), name, exclude };
}
