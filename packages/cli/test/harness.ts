import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pipeline, type Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { openPathInfoService, RenderingNarCalculationService } from "@tvix/store";
import type { ServiceAddresses } from "../src/options/addresses.ts";
import { openServices } from "../src/services.ts";

/** The script of `tvix-store`, as it was built before the tests. */
export const MAIN: string = fileURLToPath(new URL("../dist/main.cjs", import.meta.url));

const COMMAND = readFileSync(new URL("../bin/tvix-store.cjs", import.meta.url), "utf8");

/** The options of Node that the command sets, */
export const NODE_OPTIONS: readonly string[] =
  COMMAND.match(/; exec node (--.*?) "/)![1]!.split(" ");

/** and the variables of glibc: without them, a daemon takes 30 MB more. */
const MALLOC_VARIABLES: NodeJS.ProcessEnv = Object.fromEntries(
  Array.from(COMMAND.matchAll(/\$\{(MALLOC_\w+):=(\d+)\}/g), ([, name, value]) => [name, value]),
);

/** A new folder, removed with everything in it when it is disposed of. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "tvix-store-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** How a run of the command ended. */
export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a command is started. */
interface SpawnOptions {
  /** The Node to run, and the script of `tvix-store`. Default: this Node, and what was built. */
  program?: readonly [node: string, main: string];
  /** Variables beside those of this process; without those that are `undefined`. */
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** The user to run it as. Default: that of this process. */
  uid?: number;
  /** Its stdin. Default: empty. */
  stdin?: Readable;
  /** Sends it SIGINT when it is aborted. Default: never. */
  interrupt?: AbortSignal;
}

/** Runs `tvix-store` to its end. */
export async function tvixStore(
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Outcome> {
  const child = spawnCommand(args, options);
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  const status = await exited(child);
  return { status, stdout: await stdout, stderr: await stderr };
}

/** A running `tvix-store daemon` or `nar-bridge`. Disposing of it kills it, if it still runs. */
export interface Daemon extends AsyncDisposable {
  readonly process: ChildProcess;
  /** Resolves with the exit status, `null` after a signal. */
  readonly exit: Promise<number | null>;
  /** Where it listens, such as `127.0.0.1:4711`. */
  readonly addresses: readonly string[];
  /** Its log so far, a parsed line each. */
  readonly log: readonly Record<string, unknown>[];
}

/** Starts a daemon and waits until it listens. */
export async function startDaemon(
  args: readonly string[],
  options?: ServerSpawnOptions,
): Promise<Daemon> {
  return await startServing(["daemon", ...args], options);
}

/** Starts `tvix-store nar-bridge` and waits until it listens. */
export async function startNarBridge(
  args: readonly string[],
  options?: ServerSpawnOptions,
): Promise<Daemon> {
  return await startServing(["nar-bridge", ...args], options);
}

type ServerSpawnOptions = Pick<SpawnOptions, "program" | "env" | "uid">;

/** Starts a command and waits until it logs that it listens, or another message. */
export async function startServing(
  args: readonly string[],
  { message = "listening", ...options }: ServerSpawnOptions & { message?: string } = {},
): Promise<Daemon> {
  const env = { LOG_LEVEL: "debug", ...options.env }; // a line for each call
  const child = spawnCommand(args, { ...options, env });
  const exit = exited(child);
  const log: Record<string, unknown>[] = [];
  const plain: string[] = [];
  const addresses = await new Promise<string[]>((resolve, reject) => {
    createInterface(child.stderr!).on("line", (line) => {
      if (!line.startsWith("{")) {
        plain.push(line);
        return;
      }
      const entry = JSON.parse(line);
      log.push(entry);
      if (entry.msg === message) resolve(entry.addresses);
    });
    exit.then((status) =>
      reject(new Error(`${args[0]} exited with ${status}: ${plain.join("\n")}`)),
    );
  });
  return {
    process: child,
    exit,
    addresses,
    log,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exit;
    },
  };
}

/** The options that store everything embedded, below a folder. */
export function embeddedIn(folder: string): string[] {
  return [
    `--blob-service-addr=pack://${folder}/blobs`,
    `--directory-service-addr=sqlite://${folder}/directories.sqlite`,
    `--path-info-service-addr=sqlite://${folder}/path-infos.sqlite`,
  ];
}

/** Returns the TOML that describes the same stores as {@link embeddedIn}, for `--store-composition`. */
export function compositionIn(folder: string): string {
  return [
    ["blobservices", "pack", "blobs"],
    ["directoryservices", "sqlite", "directories.sqlite"],
    ["pathinfoservices", "sqlite", "path-infos.sqlite"],
  ]
    .map(
      ([kind, type, name]) => `[${kind}.default]\ntype = "${type}"\npath = "${folder}/${name}"\n`,
    )
    .join("");
}

/** Returns the number of PathInfos in the embedded stores of a folder. */
export async function countPathInfos(folder: string): Promise<number> {
  await using service = await openPathInfoService(`sqlite://${folder}/path-infos.sqlite`);
  let count = 0;
  for await (const _ of service.list()) count += 1;
  return count;
}

/**
 * Reads the contents of all registered store paths, and returns the store paths.
 *
 * @param options as {@link embeddedIn} or {@link throughDaemon} gave them
 * @throws Error for contents that differ from the registered ones
 */
export async function readEverything(options: readonly string[]): Promise<string[]> {
  await using services = await openServices(addressesOf(options));
  const nars = new RenderingNarCalculationService(services);
  const found: string[] = [];
  for await (const { storePath, node, narSha256 } of services.pathInfoService.list()) {
    const nar = await nars.calculateNar(node);
    if (!Buffer.from(nar.narSha256).equals(narSha256)) {
      throw new Error(`expected ${storePath} to be what is registered, found something else`);
    }
    found.push(storePath.toAbsolutePath());
  }
  return found;
}

/** The options that use a daemon for everything. */
export function throughDaemon(address: string): string[] {
  return ["blob", "directory", "path-info"].map((name) => `--${name}-service-addr=${address}`);
}

/** The addresses in options that {@link embeddedIn} or {@link throughDaemon} gave. */
export function addressesOf(options: readonly string[]): ServiceAddresses {
  const [blob, directory, pathInfo] = options.map((option) =>
    option.slice(option.indexOf("=") + 1),
  );
  return {
    blobServiceAddr: blob!,
    directoryServiceAddr: directory!,
    pathInfoServiceAddr: pathInfo!,
  };
}

function spawnCommand(
  args: readonly string[],
  { program: [node, main] = [process.execPath, MAIN], stdin, interrupt, ...options }: SpawnOptions,
): ChildProcess {
  const child = spawn(node, [...NODE_OPTIONS, main, ...args], {
    ...options,
    env: { ...MALLOC_VARIABLES, ...process.env, ...options.env },
    stdio: [stdin ? "pipe" : "ignore", "pipe", "pipe"],
  });
  if (stdin) pipeline(stdin, child.stdin!, () => {}); // a command may end before all was read
  interrupt?.addEventListener("abort", () => child.kill("SIGINT"), { once: true });
  return child;
}

function exited(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("close", resolve));
}

async function collect(stream: ChildProcess["stdout"]): Promise<string> {
  let text = "";
  for await (const data of stream!) text += data;
  return text;
}
