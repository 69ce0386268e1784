/**
 * Pauses this process at failpoints. Loaded by `node --import` before a program, it wraps what changes a store on
 * disk, in all threads: calls of node:fs that create, write, sync, rename, link, truncate or remove below a folder,
 * and commits of SQLite. There is a failpoint between each of them and the next one of its thread, one at the end of
 * the process, and one where half of a write is done. Of those of one name, each thread pauses at the first.
 *
 * `FAILPOINTS_FOLDER` is the folder. At a failpoint, the process writes a line to stdout, "failpoint" and the name, and
 * the thread goes on when it can read a byte from descriptor 3.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { relative } from "node:path";
import { callbackify, promisify } from "node:util";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";
import Sqlite from "better-sqlite3";

type Call = (this: unknown, ...args: unknown[]) => unknown;

const FOLDER = process.env.FAILPOINTS_FOLDER!;
const GO_ON = 3;
const LOCK = "failpoints";

const { readSync, writeSync } = fs;

if (isMainThread) setEnvironmentData(LOCK, new Int32Array(new SharedArrayBuffer(4)) as never);
/** 1 while a thread pauses: one at a time does. */
const lock = getEnvironmentData(LOCK) as unknown as Int32Array;

/** The names of the failpoints that this thread has passed. */
const names = new Set<string>();
/** The last change by this thread. */
let last = "the start";

/** Whether the failpoint is the first of its name in this thread. */
function isFirst(name: string): boolean {
  if (names.has(name)) return false;
  names.add(name);
  return true;
}

/** Blocks this thread until it may go on. */
function pause(name: string): void {
  while (Atomics.compareExchange(lock, 0, 0, 1) !== 0) Atomics.wait(lock, 0, 1);
  writeSync(1, `failpoint ${name}\n`);
  readSync(GO_ON, new Uint8Array(1));
  Atomics.store(lock, 0, 0);
  Atomics.notify(lock, 0);
}

/** A failpoint between the last change and the next one. */
function failpointBefore(next: string): void {
  const name = `after ${last}, before ${next}`;
  if (isFirst(name)) pause(name);
}

/** How the failpoints of a method are found. */
interface Wrapping {
  /** The file or folder that a call changes; `undefined` for a call that changes none. */
  readonly pathOf: (self: unknown, args: readonly unknown[]) => unknown;
  /** The arguments of two calls, of which the first does half of the work, and the second the rest. Default: none. */
  readonly halves?: (args: readonly unknown[]) => readonly [half: unknown[], rest: unknown[]];
}

/** Replaces a method of an object by one with failpoints. */
function wrap(target: object, name: string, { pathOf, halves }: Wrapping): void {
  const methods = target as Record<string, Call>;
  const original = methods[name]!;
  methods[name] = function (...args) {
    const path = pathOf(this, args);
    if (typeof path !== "string" || !path.startsWith(FOLDER)) return original.apply(this, args);
    const change = `${name} ${relative(FOLDER, path).replaceAll(/[0-9a-f]{4}[0-9a-f-]*/g, "*") || "."}`;
    failpointBefore(change);
    const within = `within ${change}`;
    const changed = () => {
      last = change;
    };
    if (halves === undefined || !isFirst(within))
      return andThen(original.apply(this, args), changed);
    const [half, rest] = halves(args);
    return andThen(original.apply(this, half), () => {
      pause(within);
      return andThen(original.apply(this, rest), changed);
    });
  };
}

/** Replaces a method that calls back, as its last argument says, by one with failpoints. */
function wrapCallback(target: object, name: string, wrapping: Wrapping): void {
  const methods = target as Record<string, Call>;
  const promised = { [name]: promisify(methods[name]!) };
  wrap(promised, name, wrapping);
  methods[name] = callbackify(promised[name] as () => Promise<unknown>) as Call;
}

/** Runs a function once a result is available. Returns the result of the function or, if `undefined`, the first one. */
function andThen(result: unknown, run: (value: unknown) => unknown): unknown {
  if (result instanceof Promise) return result.then((value) => andThen(value, run));
  const next = run(result);
  return next === undefined ? result : next;
}

/** The files that are open, by descriptor and by handle. */
const pathsOfFiles = new Map<unknown, unknown>();
const ofFile = { pathOf: (_: unknown, [fd]: readonly unknown[]) => pathsOfFiles.get(fd) };
const ofHandle = { pathOf: (handle: unknown) => pathsOfFiles.get(handle) };
const firstPath = { pathOf: (_: unknown, [path]: readonly unknown[]) => path };
const secondPath = { pathOf: (_: unknown, [, path]: readonly unknown[]) => path };

/** Notes the path of each file that is opened. Files that are read only are none of a store's changes. */
function noteFiles(target: object, name: string): void {
  const methods = target as Record<string, Call>;
  const original = methods[name]!;
  methods[name] = function (...args) {
    return andThen(original.apply(this, args), (file) => {
      pathsOfFiles.set(file, args[0]);
    });
  };
}

noteFiles(fs, "openSync");
noteFiles(fs.promises, "open");

for (const name of ["mkdirSync", "rmSync", "unlinkSync", "truncateSync"]) wrap(fs, name, firstPath);
for (const name of ["mkdir", "rm", "unlink", "truncate"]) wrap(fs.promises, name, firstPath);
for (const name of ["renameSync", "linkSync"]) wrap(fs, name, secondPath);
for (const name of ["rename", "link"]) wrap(fs.promises, name, secondPath);
for (const name of ["fsyncSync", "fdatasyncSync", "ftruncateSync"]) wrap(fs, name, ofFile);
wrapCallback(fs, "fdatasync", ofFile);
wrap(fs, "writeSync", ofFile);
wrap(fs, "writevSync", {
  ...ofFile,
  halves: ([fd, parts, position]) => {
    const all = Buffer.concat(parts as Uint8Array[]);
    return [
      [fd, [all.subarray(0, all.length >> 1)], position],
      [fd, [all], position], // once more as a whole, whose length is the result
    ];
  },
});

const handle = await fs.promises.open("/dev/null");
const handles: object = Object.getPrototypeOf(handle);
await handle.close();
pathsOfFiles.clear();
for (const name of ["sync", "datasync", "truncate", "write", "writev", "writeFile"]) {
  wrap(handles, name, ofHandle);
}
wrap(handles, "appendFile", {
  ...ofHandle,
  halves: ([data]) => {
    const all = data as Uint8Array;
    return [[all.subarray(0, all.length >> 1)], [all.subarray(all.length >> 1)]];
  },
});
syncBuiltinESMExports();

wrap(Sqlite.prototype, "exec", {
  pathOf: (database, [sql]) => (sql === "COMMIT" ? (database as Sqlite.Database).name : undefined),
});

if (isMainThread) process.once("exit", () => failpointBefore("the end"));
