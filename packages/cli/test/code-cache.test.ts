import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

/** How many runs add the functions that they used, unless a day lies between them. */
const EAGER_RUNS = 6;

describe("functions that earlier runs have compiled", () => {
  let folder: ReturnType<typeof temporaryFolder>;
  let cache: string;
  beforeEach(() => {
    folder = temporaryFolder();
    cache = join(folder.path, "cache");
  });
  afterEach(() => folder[Symbol.dispose]());

  /** The variables of a user: the tests themselves have set the second and the third. */
  const caching = () => ({
    XDG_CACHE_HOME: cache,
    NODE_COMPILE_CACHE: undefined,
    NODE_DISABLE_COMPILE_CACHE: undefined,
  });

  /** Runs a command that ends well. */
  async function run(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await tvixStore(args, { env: caching() });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return stdout;
  }

  /** Imports a file, and returns its store path. */
  async function importFile(contents: string): Promise<string> {
    const file = join(folder.path, "file");
    writeFileSync(file, contents);
    return (await run("import", file, ...embeddedIn(folder.path))).trim();
  }

  /** The files of the cache with functions of a file of the bundle. */
  function kept(name = ""): string[] {
    const [version = ""] = readdirSync(join(cache, "tvix-store")).filter((name) =>
      /^v\d/.test(name),
    );
    const at = join(cache, "tvix-store", version);
    const names = readdirSync(at).filter((file) =>
      new RegExp(`^${name}.*\\.cjs-[0-9a-f]+$`).test(file),
    );
    return names.map((name) => join(at, name));
  }

  /** How many runs have added to the functions of a file. */
  const runsOf = (path: string) => readFileSync(path).readUInt32LE(readFileSync(path).length - 4);

  it("are taken by those that follow, of which the first few add theirs, and then one a day", async () => {
    for (let i = 0; i < EAGER_RUNS + 2; i++) await run("--version");
    const [program, ...others] = kept("program");
    expect(others).toEqual([]);
    expect(runsOf(program!)).toBe(EAGER_RUNS);
    const yesterday = Date.now() / 1000 - 25 * 60 * 60;
    utimesSync(program!, yesterday, yesterday);
    for (let i = 0; i < 2; i++) await run("--version");
    expect(runsOf(program!)).toBe(EAGER_RUNS + 1);
  });

  it("are those of all commands", async () => {
    const path = await importFile("contents");
    const [core] = kept("core");
    const { length } = readFileSync(core!);
    expect(await run("cat", path, ...embeddedIn(folder.path))).toBe("contents");
    expect(readFileSync(core!).length).toBeGreaterThan(length);
    expect(runsOf(core!)).toBe(2);
  });

  it("are those that a daemon runs for its calls as well", async () => {
    const path = await importFile("contents");
    const [core] = kept("core");
    const { length } = readFileSync(core!);
    const socket = join(folder.path, "socket");
    await using daemon = await startDaemon(
      [`--listen-address=${socket}`, ...embeddedIn(folder.path)],
      { env: caching() },
    );
    await run("cat", path, ...throughDaemon(`grpc+unix://${socket}`));
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    expect(readFileSync(core!).length).toBeGreaterThan(length);
    expect(runsOf(core!)).toBe(3);
    await run("cat", path, ...embeddedIn(folder.path));
    expect(runsOf(core!)).toBe(4); // 1 if V8 had refused the code
  });

  it("are removed when they were not used for 30 days, with folders of other versions of Node.js", async () => {
    await run("--version");
    const [program] = kept("program");
    const old = `${program}0`;
    const other = join(cache, "tvix-store", "v22.0.0-x64");
    mkdirSync(other);
    for (const path of [old, join(other, "program.cjs-0")]) {
      writeFileSync(path, "");
      const longAgo = Date.now() / 1000 - 31 * 24 * 60 * 60;
      utimesSync(path, longAgo, longAgo);
    }
    await run("--version");
    expect(kept("program")).toEqual([program]);
    expect(existsSync(other)).toBe(false);
  });

  it.each<[string, (bytes: Buffer) => Buffer]>([
    [
      "has other bytes",
      (bytes) => bytes.map((byte, i) => (i % 100 === 50 ? ~byte : byte)) as Buffer,
    ],
    [
      "has other bytes at its end",
      (bytes) => Buffer.concat([bytes.subarray(0, -5), Buffer.alloc(5)]),
    ],
    ["was cut off", (bytes) => bytes.subarray(0, bytes.length / 2)],
    ["is empty", () => Buffer.alloc(0)],
    ["is too long", (bytes) => Buffer.concat([bytes, bytes])],
  ])("are compiled again if a file %s", async (_, damage) => {
    const path = await importFile("contents");
    await importFile("contents");
    for (const file of kept()) writeFileSync(file, damage(readFileSync(file)));
    expect(await importFile("contents")).toBe(path);
    expect(kept().length).toBeGreaterThan(3);
    for (const file of kept()) expect(runsOf(file)).toBe(1);
  });

  it("are not kept where that cannot be", async () => {
    const path = await importFile("contents");
    for (const file of kept()) {
      rmSync(file);
      mkdirSync(file); // nothing can replace it
    }
    expect(await importFile("contents")).toBe(path);
    for (const file of kept()) expect(readdirSync(file)).toEqual([]);
    expect(kept().length).toBeGreaterThan(3);
  });

  it("are not kept where the folder of the cache was removed meanwhile", async () => {
    const listen = `--listen-address=${join(folder.path, "socket")}`;
    await using daemon = await startDaemon([listen, ...throughDaemon("memory://")], {
      env: caching(), // and no threads, which would make the folder again
    });
    rmSync(cache, { recursive: true });
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
  });

  it("are neither kept nor asked for if the compile cache of Node.js is off", async () => {
    const env = { ...caching(), NODE_DISABLE_COMPILE_CACHE: "1" };
    expect(await tvixStore(["--version"], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(() => readdirSync(cache)).toThrow("ENOENT");
  });
});
