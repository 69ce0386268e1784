import { basename } from "node:path";
import type { ImportProgress } from "@tvix/castore";
import { importArchive, importPath, type PathInfo, ReferenceCandidates } from "@tvix/store";
import type { Ora } from "ora";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import type { Interrupt } from "./interrupt.ts";
import { writeStderr, writeStdout } from "./output.ts";
import { openServices, type Services } from "./services.ts";
import { startTracing, traceCommand } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";

/** What is imported, besides paths, and how. */
export interface ImportCommandOptions {
  /** A tar archive instead of paths: the path of a file, or `-` for stdin. */
  archive?: string;
  /** Name of the archive in the store. Default: that of the file, without what tells that it is an archive. */
  name?: string;
  /** Whether to scan for the store paths that are there, also those imported before. */
  references?: boolean;
}

/** What is around the imports of a command. */
interface Surroundings {
  readonly interrupt: Interrupt;
  readonly spinner: Ora | undefined;
  /** Writes a line on stderr. */
  readonly tell: (message: string) => void;
}

/** What every import of a command is given. */
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
  const spinner = process.stderr.isTTY ? await createSpinner() : undefined;
  const tell = (message: string) => {
    if (spinner?.isSpinning) spinner.clear(); // it draws itself again
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
  { interrupt: { signal }, spinner, tell }: Surroundings,
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
    process.stdin.destroy(); // which would keep the process, if nothing came to its end
  }
}

/** The name of a file without what tells that it is an archive, such as `.tar.gz` or `.tgz`. */
function nameOfArchive(path: string): string {
  return basename(path).replace(/(.)\.(tar(\.[a-z0-9]+)?|t(gz|az|xz|zst|bz2?|b2))$/i, "$1");
}

/** Says that only a symlink was stored: somebody who gives `./result`, as nix-build makes it, wants what it points to. */
function symlinkWarning(path: string, target: Uint8Array): string {
  const [from, to] = [path, Buffer.from(target).toString()].map((text) => JSON.stringify(text));
  return `warning: stored only the symlink ${from}, which points to ${to}; to store what it points to, give the path that "readlink -f" prints`;
}

/** Loads what draws the progress line, for which there has to be a terminal. */
async function createSpinner(): Promise<Ora> {
  const { default: ora } = await import("ora");
  // Reading from the terminal is left alone, so that Ctrl-C stays a signal.
  return ora({ stream: process.stderr, discardStdin: false });
}
