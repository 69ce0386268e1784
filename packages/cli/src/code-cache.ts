import { readdirSync, readFileSync, rmdirSync, statSync } from "node:fs";
import { createRequire, enableCompileCache, getCompileCacheDir } from "node:module";
import { basename, dirname, join } from "node:path";
import { Script } from "node:vm";
import { crc32 } from "node:zlib";
import { sweepCacheFolder, writeCacheFile } from "./cache-file.ts";
import { cacheFolder } from "./user-folders.ts";

/** What follows the code in a file of the cache: its CRC-32, and how many runs have added to it, of 4 bytes each. */
const TRAILER_LENGTH = 8;

/** How many runs each add the functions that they have used. Later, one run a day does. */
const EAGER_RUNS = 6;
const DAY_MS = 24 * 60 * 60 * 1000;

/** Code that is in the cache. */
interface KeptCode {
  readonly code: Buffer;
  readonly runs: number;
  /** Whether this run has nothing to add to it. */
  readonly isComplete: boolean;
}

/** A script whose functions belong in the cache. */
interface OpenScript {
  readonly script: Script;
  readonly path: string;
  /** Whether it has come with code of the cache. */
  readonly isTaken: boolean;
}

const modules = new Map<string, { exports: unknown }>();
let folder: string | undefined;
const open: OpenScript[] = [];

/**
 * Has files that {@link loadBundled} loads come with the functions that earlier runs have compiled. The compile cache of
 * Node.js, which is enabled as well, has what a file runs when it is loaded, and no function that is called later: those
 * take a fifth of the time of a command.
 *
 * The code is for one version of V8 with the options that it has, which name the folder, and it is run as it is: its place
 * is a folder of this user.
 */
export function useCodeCache(): void {
  const cache = cacheFolder();
  if (cache === undefined) return;
  enableCompileCache(cache);
  folder = getCompileCacheDir();
  if (folder === undefined) return;
  process.env.NODE_COMPILE_CACHE ??= cache; // for worker threads
  process.once("exit", () => {
    saveCode();
    if (open.length > 0 && folder?.startsWith(cache)) sweepVersions(cache); // not where NODE_COMPILE_CACHE says
  });
}

/** Loads a file of the bundle, and those that it requires. */
export function loadBundled(path: string): unknown {
  const known = modules.get(path);
  if (known !== undefined) return known.exports;
  const module = { exports: {} };
  modules.set(path, module);
  const native = createRequire(path);
  const require = (id: string): unknown => {
    if (!id.startsWith("./")) return native(id);
    const required = join(dirname(path), id);
    return native.cache[required]?.exports ?? loadBundled(required);
  };
  const run = compile(path).runInThisContext();
  run(module.exports, Object.assign(require, native), module, path, dirname(path));
  return module.exports;
}

/** Keeps the functions that this run has compiled, with those that it took. */
function saveCode(): void {
  for (const { script, path, isTaken } of open) {
    const compiled = script.createCachedData();
    // Another run may have added its functions meanwhile, and V8 forgets those that are not called for long.
    const found = isTaken ? read(path) : undefined;
    const code = found && found.code.length > compiled.length ? found.code : compiled;
    const trailer = Buffer.alloc(TRAILER_LENGTH);
    trailer.writeUInt32LE(crc32(code), 0);
    trailer.writeUInt32LE((found?.runs ?? 0) + 1, 4);
    writeCacheFile(path, Buffer.concat([code, trailer]));
  }
}

/** Removes code that nobody uses any more, with the folders of earlier versions of Node.js. */
function sweepVersions(cache: string): void {
  try {
    const versions = readdirSync(cache).filter((name) => name.startsWith("v"));
    for (const version of versions.map((name) => join(cache, name))) {
      sweepCacheFolder(version);
      if (readdirSync(version).length === 0) rmdirSync(version);
    }
  } catch {
    // Others use it, or sweep as well.
  }
}

function compile(path: string): Script {
  const source = readFileSync(path);
  const kept = folder && join(folder, `${basename(path)}-${crc32(source).toString(16)}`);
  const found = kept === undefined ? undefined : read(kept);
  const script = new Script(
    `(function (exports, require, module, __filename, __dirname) {${source}\n})`,
    {
      filename: path,
      ...(found && { cachedData: found.code }),
    },
  );
  const isTaken = found !== undefined && script.cachedDataRejected === false;
  if (kept !== undefined && !(isTaken && found.isComplete)) {
    open.push({ script, path: kept, isTaken });
  }
  return script;
}

/** Reads code; `undefined` if there is none, or not as it was written: V8 takes bytes that are wrong, and crashes. */
function read(path: string): KeptCode | undefined {
  try {
    const { mtimeMs } = statSync(path);
    const bytes = readFileSync(path);
    const code = bytes.subarray(0, -TRAILER_LENGTH);
    if (crc32(code) !== bytes.readUInt32LE(code.length)) return undefined;
    const runs = bytes.readUInt32LE(code.length + 4);
    return { code, runs, isComplete: runs >= EAGER_RUNS && Date.now() - mtimeMs <= DAY_MS };
  } catch {
    return undefined;
  }
}
