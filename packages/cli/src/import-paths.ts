import { statSync } from "node:fs";
import { basename } from "node:path";
import { type ImportProgress, startLanes } from "@tvix/castore";
import { importArchive, importPath, type PathInfo, ReferenceCandidates } from "@tvix/store";
import type { Ora } from "ora";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import type { Interrupt } from "./interrupt.ts";
import { writeStderr, writeStdout } from "./output.ts";
import { openServices, type Services } from "./services.ts";
import { startTracing, traceCommand } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";

/** Options of {@link importPaths} about what is imported, and how. */
export interface ImportCommandOptions {
  /** Path of a tar archive to import instead of paths; `-` is stdin. */
  archive?: string;
  /** Name of the archive in the store. Default: the name of the file without its ending, such as `.tar.gz`. */
  name?: string;
  /** Whether to register the known store paths that the contents mention. Default: false. */
  references?: boolean;
}

/** What the imports of a command share. */
interface ImportContext {
  readonly interrupt: Interrupt;
  readonly spinner: Ora | undefined;
  /** Writes a line on stderr. */
  readonly tell: (message: string) => void;
}

/** Options that every import of a command gets. */
interface CommonOptions {
  signal: AbortSignal;
  references?: ReferenceCandidates;
  onProgress?: (progress: ImportProgress) => void;
}

/** Imports paths one after the other, or an archive, and prints the store path of each on stdout. */
export async function importPaths(
  paths: readonly string[],
  options: ServiceOptions & TracingOptions & ImportCommandOptions,
  interrupt: Interrupt,
): Promise<void> {
  if (paths.some(isFolder)) startLanes(); // while stores are opened
  const spinner = process.stderr.isTTY ? await createSpinner() : undefined;
  const tell = (message: string) => {
    if (spinner?.isSpinning) spinner.clear(); // ora redraws it
    writeStderr(`tvix-store: ${message}\n`);
  };
  await using _tracing = await startTracing(options, tell);
  await traceCommand("tvix-store import", () =>
    importAll(paths, options, { interrupt, spinner, tell }),
  );
}

async function importAll(
  paths: readonly string[],
  { archive, name, references, ...addresses }: ServiceOptions & ImportCommandOptions,
  { interrupt: { signal }, spinner, tell }: ImportContext,
): Promise<void> {
  await using services = await openServices(addresses, {
    signal,
    onEvent: ({ store, message }) => tell(`${store}: ${message}`),
  });
  const candidates = references ? new ReferenceCandidates() : undefined;
  const importOne = async (
    what: string,
    run: (options: CommonOptions) => Promise<PathInfo>,
  ): Promise<void> => {
    spinner?.start(what);
    const { storePath, node } = await run({
      signal,
      ...(candidates && { references: candidates }),
      ...(spinner && {
        onProgress({ entries, bytes }) {
          spinner.text = `${what}: ${entries} entries, ${(bytes / 1e6).toFixed(1)} MB`;
        },
      }),
    });
    candidates?.add(storePath.hashPart);
    spinner?.stop();
    await writeStdout(`${storePath.toAbsolutePath()}\n`, { signal });
    if (node.type === "symlink") tell(symlinkWarning(what, node.target));
  };
  try {
    if (candidates !== undefined) {
      for await (const { storePath } of services.pathInfoService.list({ signal })) {
        candidates.add(storePath.hashPart);
      }
    }
    if (archive !== undefined) {
      await importOne(archive, (options) => importTar(archive, name, services, options));
    }
    for (const path of paths) {
      await importOne(path, (options) => importPath(absolutePath(path), services, options));
    }
  } finally {
    spinner?.stop();
  }
}

async function importTar(
  archive: string,
  name: string = nameOfArchive(archive),
  services: Services,
  options: CommonOptions,
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

/** Returns the warning about an import of a bare symlink, such as the `result` of nix-build. */
function symlinkWarning(path: string, target: Uint8Array): string {
  const [from, to] = [path, Buffer.from(target).toString()].map((text) => JSON.stringify(text));
  return `warning: stored only the symlink ${from}, which points to ${to}; to store what it points to, give the path that "readlink -f" prints`;
}

/** Tells whether a path is that of a folder. */
function isFolder(path: string): boolean {
  return statSync(absolutePath(path), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Creates the progress line, which needs a terminal. */
async function createSpinner(): Promise<Ora> {
  const { default: ora } = await import("ora");
  // With `discardStdin`, ora would read the terminal, and Ctrl-C would be no signal.
  return ora({ stream: process.stderr, discardStdin: false });
}
