import { type ChildProcess, execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import { describe } from "vitest";
import { type Daemon, startServing } from "./harness.ts";
import { canMount } from "./small-disk.ts";

/** A running `tvix-store mount`. Disposing of it kills it, takes the file system away and removes the folder. */
export interface Mounted extends AsyncDisposable {
  readonly folder: string;
  readonly process: ChildProcess;
  /** Resolves with the exit status, `null` after a signal. */
  readonly exit: Promise<number | null>;
  readonly log: Daemon["log"];
}

/** Describes tests that mount, and skips them where that is not possible, which the title then says. */
export function describeWithFuse(title: string, tests: () => void): void {
  const missing = [
    ...(existsSync("/dev/fuse") ? [] : ["/dev/fuse"]),
    ...(canMount ? [] : ["the right to mount"]),
  ];
  const name = missing.length === 0 ? title : `${title} (missing: ${missing.join(", ")})`;
  describe.skipIf(missing.length > 0)(name, tests);
}

/** Mounts on a new folder, named by its relative path, and waits until it is there. */
export async function startMount(
  args: readonly string[],
  { env = {} }: { env?: NodeJS.ProcessEnv } = {},
): Promise<Mounted> {
  const folder = newFolder();
  try {
    const serving = await startServing(["mount", ...args, relative(process.cwd(), folder)], {
      message: "mounted",
      env,
    });
    return {
      folder,
      process: serving.process,
      exit: serving.exit,
      log: serving.log,
      async [Symbol.asyncDispose]() {
        await serving[Symbol.asyncDispose](); // whoever waits for it then gets an error
        takeAway(folder);
      },
    };
  } catch (error) {
    takeAway(folder);
    throw error;
  }
}

/** Returns a new folder to mount on. */
function newFolder(): string {
  return mkdtempSync(join(tmpdir(), "tvix-mount-"));
}

/** Ends whatever is mounted on a folder, also where its process hangs or has gone, and removes the folder. */
function takeAway(folder: string): void {
  try {
    execFileSync("umount", ["-i", "-l", folder], { stdio: "pipe", timeout: 10_000 });
  } catch {} // nothing is mounted there
  rmdirSync(folder);
}

/**
 * Runs a shell script and returns what it prints. It never runs in this process, nor for longer than a minute, so that a
 * file system that hangs fails a test, and no more.
 */
export async function shell(script: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)("bash", ["-euc", script, "bash", ...args], {
    timeout: 60_000,
    killSignal: "SIGKILL",
    maxBuffer: 64 * 1024 * 1024,
    encoding: "latin1", // names may be any bytes
    env: { ...process.env, LC_ALL: "C" },
  });
  return stdout;
}
