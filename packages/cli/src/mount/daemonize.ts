import { spawn } from "node:child_process";
import { once } from "node:events";
import { CastoreError } from "@tvix/castore";
import type { Interrupt } from "../terminal/interrupt.ts";

/** Tells a process that it is the one in the background. */
const VARIABLE = "TVIX_STORE_IN_BACKGROUND";

/** Whether this process was started by {@link daemonize}. */
export function isInBackground(): boolean {
  return process.env[VARIABLE] === "1" && process.send !== undefined;
}

/**
 * Runs the command of this process again, in the background, in a session of its own, and waits until it is ready. Its
 * stderr stays that of this process.
 *
 * @throws CastoreError `internal` if it ended before that: it has said why
 */
export async function daemonize({ signal }: Interrupt): Promise<void> {
  const { execPath, execArgv, argv, env } = process;
  const child = spawn(execPath, [...execArgv, ...argv.slice(1)], {
    env: { ...env, [VARIABLE]: "1" },
    detached: true,
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const stop = () => child.kill("SIGTERM");
  signal.addEventListener("abort", stop);
  const ready = once(child, "message").then(() => true);
  const ended = once(child, "exit").then(() => false);
  const isReady = await Promise.race([ready, ended]);
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  if (!isReady) throw new CastoreError("internal", "the process in the background has ended");
  child.disconnect();
  child.unref();
}

/** Tells the process that waits in {@link daemonize} that this one is ready. */
export function tellReady(): void {
  process.send!("ready", () => process.disconnect());
}
