import { lstat, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { programPath } from "@tvix/conformance/find-program";
import { execa } from "execa";
import type { Command } from "./subject.ts";

/** What processes took. */
export interface Usage {
  /** Seconds of all processors, in user mode and in the kernel. */
  readonly cpuSeconds: number;
  /** The most memory that one of the processes had at a time, in bytes. */
  readonly peakBytes: number;
}

/** A program that was run to its end. */
export interface Finished extends Usage {
  readonly wallSeconds: number;
  readonly stdout: string;
}

/** The environment that programs are started in. */
export function environment(command: Command, profiles?: string): Record<string, string> {
  // Programs of ours run on the Node that runs this.
  const path = `${dirname(process.execPath)}:${programPath()}`;
  const env: Record<string, string> = { PATH: path, ...command.env };
  // Every thread of every Node process below writes a profile of its own.
  if (profiles) env.NODE_OPTIONS = `--cpu-prof --cpu-prof-interval=500 --cpu-prof-dir=${profiles}`;
  return env;
}

/**
 * Runs a program to its end. What it and the processes that it waited for took is what GNU time says.
 *
 * @param profiles a folder for the CPU profiles of Node processes. Default: none are taken
 * @throws Error if its exit status is not 0, with what it wrote to stderr
 */
export async function runMeasured(command: Command, profiles?: string): Promise<Finished> {
  const folder = await mkdtemp(join(tmpdir(), "tvix-bench-"));
  try {
    const report = join(folder, "usage");
    const env = environment(command, profiles);
    const start = performance.now();
    const { stdout } = await execa(
      "time",
      ["--quiet", `--output=${report}`, "--format=%U %S %M", ...command.argv],
      { env, stdin: "ignore" },
    );
    const wallSeconds = (performance.now() - start) / 1000;
    const [user, system, peakKiB] = (await readFile(report, "utf8")).trim().split(" ").map(Number);
    return { wallSeconds, cpuSeconds: user! + system!, peakBytes: peakKiB! * 1024, stdout };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs a program to its end, as a step that prepares others. */
export async function runCommand(command: Command): Promise<string> {
  const [program, ...args] = command.argv;
  const { stdout } = await execa(program!, args, { env: environment(command), stdin: "ignore" });
  return stdout;
}

/** How many bytes a folder, with all that is in it, takes of the disk. */
export async function diskBytes(path: string): Promise<number> {
  const folders = [path];
  let bytes = (await lstat(path)).blocks * 512;
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.isSocket()) continue;
      const inner = join(folder, entry.name);
      bytes += (await lstat(inner)).blocks * 512;
      if (entry.isDirectory()) folders.push(inner);
    }
  }
  return bytes;
}
