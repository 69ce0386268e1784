/**
 * Mounts stores and reads one of their store paths through the file system.
 *
 *   read-mount.ts KIND NAME FOLDER COMMAND... : the command mounts on the folder, which ends with it
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { ReadKind } from "../subject.ts";
import { timedRead } from "./reads.ts";
import { reportWork } from "./report-work.ts";

const READ_TIMEOUT_MS = 120_000;

const [kind, name, folder, program, ...args] = process.argv.slice(2) as [
  ReadKind,
  string,
  string,
  string,
  ...string[],
];
await mkdir(folder, { recursive: true });
const { dev } = await stat(dirname(folder));
const child = spawn(program, [...args, folder], { stdio: ["ignore", "ignore", "inherit"] });
const ended = once(child, "close");
const timer = setTimeout(() => child.kill("SIGKILL"), READ_TIMEOUT_MS); // which fails what waits
try {
  while ((await stat(folder)).dev === dev) {
    if (child.exitCode !== null) throw new Error(`Cannot mount: it ended with ${child.exitCode}`);
    await sleep(20);
  }
  const found = (await readdir(folder)).find((entry) => entry.endsWith(`-${name}`));
  if (found === undefined) throw new Error(`Cannot read "${name}": it is not in the mount`);
  reportWork(await timedRead(kind, join(folder, found)));
} finally {
  clearTimeout(timer);
  child.kill("SIGTERM");
  await ended;
  await promisify(execFile)("umount", ["-l", folder]).catch(() => undefined); // some programs leave it
}
