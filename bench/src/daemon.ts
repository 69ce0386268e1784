import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { environment, type Usage } from "./measure.ts";
import type { DaemonCommand, Place } from "./subject.ts";

/** Ticks of processor time per second in `/proc`, the same on every Linux that there is today. */
const TICKS_PER_SECOND = 100;

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 30_000;

/** A running daemon. Disposing of it ends it, as one that serves is ended. */
export interface Daemon extends AsyncDisposable {
  /** What it took since it was asked last; the first time, since it listened. */
  usage(): Promise<Usage>;
}

/**
 * Starts a daemon and waits until it takes connections.
 *
 * @param profiles a folder for CPU profiles, see `runMeasured`
 */
export async function startDaemon(
  command: DaemonCommand,
  place: Place,
  profiles?: string,
): Promise<Daemon> {
  const log = `${place.socket}.log`;
  const logFile = openSync(log, "w");
  const [program, ...args] = command.argv;
  const env = { ...process.env, ...environment(command, profiles) };
  const child = spawn(program!, args, { env, stdio: ["ignore", logFile, logFile] });
  closeSync(logFile);
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const stop = async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(timer);
    await Promise.all([log, place.socket].map((path) => rm(path, { force: true })));
  };
  try {
    await once(child, "spawn");
    await listening(child, command.port ?? place.socket, log);
  } catch (error) {
    await stop();
    throw error;
  }
  let spent = await processorSeconds(child.pid!);
  await forgetPeak(child.pid!);
  return {
    async usage() {
      const seconds = await processorSeconds(child.pid!);
      const cpuSeconds = seconds - spent;
      spent = seconds;
      const peakBytes = await peakMemory(child.pid!);
      await forgetPeak(child.pid!);
      return { cpuSeconds, peakBytes };
    },
    [Symbol.asyncDispose]: stop,
  };
}

async function listening(
  child: ChildProcess,
  address: string | number,
  log: string,
): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await accepts(address))) {
    if (child.exitCode !== null || child.signalCode !== null || performance.now() > deadline) {
      throw new Error(`Cannot start daemon ${child.spawnfile}: ${await readFile(log, "utf8")}`);
    }
    await sleep(20);
  }
}

/** Tells whether somebody listens on a socket, or on a port. */
function accepts(address: string | number): Promise<boolean> {
  return new Promise((resolve) => {
    const connection =
      typeof address === "number"
        ? createConnection(address, "127.0.0.1")
        : createConnection(address);
    connection.once("connect", () => resolve(true)).once("error", () => resolve(false));
    connection.once("connect", () => connection.destroy());
  });
}

async function processorSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // the name before may have spaces
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** Begins to look for the peak of memory anew. */
async function forgetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, "5");
}
