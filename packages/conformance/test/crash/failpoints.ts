/**
 * Kills this process at a failpoint. Loaded by `node --import` before a program, it wraps what changes a store on
 * disk, in all threads: calls of node:fs that create, write, sync, rename, link, truncate or remove below a folder,
 * and commits of SQLite. There is a failpoint between each of them and the next one of its thread, one at the end of
 * the process, and one where half of a write is done. Of those of one name, each thread counts the first.
 *
 * `FAILPOINTS_FOLDER` is the folder, `FAILPOINT` the number of the failpoint, the first is 1. The process writes the
 * name of the failpoint to stderr and ends by SIGKILL; it runs to its end if there are fewer.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { relative } from "node:path";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";
import Sqlite from "better-sqlite3";

type Call = (this: unknown, ...args: unknown[]) => unknown;

const FOLDER = process.env.FAILPOINTS_FOLDER!;
const KILL_AT = Number(process.env.FAILPOINT);
const COUNTER = "failpoints";

const { writeSync } = fs;

if (isMainThread) setEnvironmentData(COUNTER, new Int32Array(new SharedArrayBuffer(4)) as never);
/** How many failpoints all threads have passed. */
const passed = getEnvironmentData(COUNTER) as unknown as Int32Array;

/** The names of the failpoints that this thread has passed. */
const names = new Set<string>();
/** What this thread changed last. */
let last = "the start";

/** Whether the process ends at a failpoint, which is counted when it is the first of its name. */
function isReached(name: string): boolean {
  if (names.has(name)) return false;
  names.add(name);
  return Atomics.add(passed, 0, 1) + 1 === KILL_AT;
}

function die(name: string): void {
  writeSync(2, name);
  process.kill(process.pid, "SIGKILL");
}

/** A failpoint between what was changed last and what is changed next. */
function failpointBefore(next: string): void {
  const name = `after ${last}, before ${next}`;
  if (isReached(name)) die(name);
}

/** How the failpoints of a method are found. */
interface Wrapping {
  /** The file or folder that a call changes; `undefined` for a call that changes none. */
  readonly pathOf: (self: unknown, args: readonly unknown[]) => unknown;
  /** The arguments with which a call does half of its work. Default: it does all or nothing. */
  readonly half?: (args: readonly unknown[]) => unknown[];
}

/** Replaces a method of an object by one with failpoints. */
function wrap(target: object, name: string, { pathOf, half }: Wrapping): void {
  const methods = target as Record<string, Call>;
  const original = methods[name]!;
  methods[name] = function (...args) {
    const path = pathOf(this, args);
    if (typeof path !== "string" || !path.startsWith(FOLDER)) return original.apply(this, args);
    const change = `${name} ${relative(FOLDER, path).replaceAll(/[0-9a-f]{4}[0-9a-f-]*/g, "*") || "."}`;
    failpointBefore(change);
    const within = `within ${change}`;
    if (half && isReached(within)) {
      return andThen(original.apply(this, half(args)), () => die(within));
    }
    return andThen(original.apply(this, args), () => {
      last = change;
    });
  };
}

/** Runs something with a result once it is there, and gives the result. */
function andThen(result: unknown, run: (value: unknown) => void): unknown {
  if (result instanceof Promise) return result.then((value) => andThen(value, run));
  run(result);
  return result;
}

/** The files that are open, by descriptor and by handle. */
const pathsOfFiles = new Map<unknown, unknown>();
const ofFile = { pathOf: (_: unknown, [fd]: readonly unknown[]) => pathsOfFiles.get(fd) };
const ofHandle = { pathOf: (handle: unknown) => pathsOfFiles.get(handle) };
const firstPath = { pathOf: (_: unknown, [path]: readonly unknown[]) => path };
const secondPath = { pathOf: (_: unknown, [, path]: readonly unknown[]) => path };

const halfOf = (data: unknown) => {
  const { length } = data as Uint8Array;
  return (data as Uint8Array).subarray(0, length >> 1);
};

/** Notes the path of each file that is opened. Files that are read only are none of a store's changes. */
function noteFiles(target: object, name: string): void {
  const methods = target as Record<string, Call>;
  const original = methods[name]!;
  methods[name] = function (...args) {
    return andThen(original.apply(this, args), (file) => pathsOfFiles.set(file, args[0]));
  };
}

noteFiles(fs, "openSync");
noteFiles(fs.promises, "open");

for (const name of ["mkdirSync", "rmSync", "unlinkSync", "truncateSync"]) wrap(fs, name, firstPath);
for (const name of ["mkdir", "rm", "unlink", "truncate"]) wrap(fs.promises, name, firstPath);
for (const name of ["renameSync", "linkSync"]) wrap(fs, name, secondPath);
for (const name of ["rename", "link"]) wrap(fs.promises, name, secondPath);
for (const name of ["fsyncSync", "fdatasyncSync", "ftruncateSync"]) wrap(fs, name, ofFile);
wrap(fs, "writeSync", ofFile);
wrap(fs, "writevSync", {
  ...ofFile,
  half: ([fd, parts, position]) => {
    const all = Buffer.concat(parts as Uint8Array[]);
    return [fd, [halfOf(all)], position];
  },
});

const handle = await fs.promises.open("/dev/null");
const handles: object = Object.getPrototypeOf(handle);
await handle.close();
pathsOfFiles.clear();
for (const name of ["sync", "datasync", "truncate", "write", "writev", "writeFile"]) {
  wrap(handles, name, ofHandle);
}
wrap(handles, "appendFile", { ...ofHandle, half: ([data]) => [halfOf(data)] });
syncBuiltinESMExports();

wrap(Sqlite.prototype, "exec", {
  pathOf: (database, [sql]) => (sql === "COMMIT" ? (database as Sqlite.Database).name : undefined),
});

if (isMainThread) process.once("exit", () => failpointBefore("the end"));
