/**
 * Mounts stores and reads all files of their only store path through the file system, in the order of its folders.
 *
 *   read-mount.ts FOLDER COMMAND... : the command mounts on the folder, which ends with it
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { reportWork, secondsOf } from "./report-work.ts";

const READ_TIMEOUT_MS = 120_000;

const [folder, program, ...args] = process.argv.slice(2) as [string, string, ...string[]];
await mkdir(folder, { recursive: true });
const { dev } = await stat(dirname(folder));
const child = spawn(program, [...args, folder], { stdio: ["ignore", "ignore", "inherit"] });
const ended = once(child, "close");
try {
  while ((await stat(folder)).dev === dev) {
    if (child.exitCode !== null) throw new Error(`Cannot mount: it ended with ${child.exitCode}`);
    await sleep(20);
  }
  const [name] = await readdir(folder);
  const script = 'tar -C "$1" -cf - "$2" | wc -c';
  let bytes = 0;
  const seconds = await secondsOf(async () => {
    const read = promisify(execFile)("sh", ["-c", script, "sh", folder, name!], {
      timeout: READ_TIMEOUT_MS,
      killSignal: "SIGKILL",
    });
    bytes = Number((await read).stdout);
  });
  if (!(bytes > 1024 * 1024)) throw new Error(`Cannot use this run: read ${bytes} bytes only`);
  reportWork({ seconds, bytes });
} finally {
  child.kill("SIGTERM");
  await ended;
}
