import {
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

/** How long a tree has to be left alone before what came of it is remembered, and some more, in milliseconds. */
const SETTLED_MS = 2_100;

const BYTES = 300_000;

describe("an import of what was imported before", () => {
  const folder = temporaryFolder();
  const tree = join(folder.path, "tree");
  const file = join(tree, "sub/file");
  let caches = 0;
  let env: NodeJS.ProcessEnv;

  beforeAll(() => {
    mkdirSync(join(tree, "sub"), { recursive: true });
    writeFileSync(file, seededBytes("again", BYTES));
    writeFileSync(join(tree, "left-out"), "");
  });
  afterAll(() => folder[Symbol.dispose]());
  beforeEach(async () => {
    env = { XDG_CACHE_HOME: join(folder.path, `cache ${++caches}`) };
    const changedMs = Math.max(
      ...[tree, join(tree, "sub"), file].map((at) => statSync(at).ctimeMs),
    );
    await sleep(Math.max(changedMs + SETTLED_MS - Date.now(), 0));
  });

  const store = (name: string) => embeddedIn(join(folder.path, `store ${caches} ${name}`));

  /** Imports the tree, and returns the report. */
  async function run(services: readonly string[], ...options: string[]) {
    const args = ["import", "--json", ...options, tree, ...services];
    const { status, stdout, stderr } = await tvixStore(args, { env });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return JSON.parse(stdout);
  }

  it("reads nothing if that has not changed, and everything with --reread", async () => {
    const socket = join(folder.path, "socket");
    await using _daemon = await startDaemon([`--listen-address=${socket}`, ...store("daemon")]);
    for (const services of [store("own"), throughDaemon(`grpc+unix://${socket}`)]) {
      const first = await run(services);
      expect(first).toMatchObject({ bytesRead: BYTES, bytesNew: BYTES });
      const nothing = { ...first, bytesRead: 0, bytesNew: 0, bytesDeduplicated: 0 };
      expect(await run(services)).toEqual(nothing);
      const all = { ...first, bytesNew: 0, bytesDeduplicated: BYTES };
      expect(await run(services, "--reread")).toEqual(all);
    }
  });

  it("reads it if it has changed, also with its length and time as before", async () => {
    const { storePath } = await run(store("own"));
    const { atime, mtime } = statSync(file);
    writeFileSync(file, seededBytes("changed", BYTES));
    utimesSync(file, atime, mtime);
    const changed = await run(store("own"));
    expect(changed).toMatchObject({ bytesRead: BYTES, bytesNew: BYTES });
    expect(changed.storePath).not.toBe(storePath);
  });

  it("reads it again where it was changed right before: the next change might have the same time", async () => {
    writeFileSync(file, seededBytes("just now", BYTES));
    expect(await run(store("own"))).toMatchObject({ bytesRead: BYTES });
    expect(await run(store("own"))).toMatchObject({ bytesRead: BYTES, bytesNew: 0 });
  });

  it("reads it under another name, and with another --exclude", async () => {
    await run(store("own"));
    const options = [["--name=other"], ["--exclude=left-*"], ["--references=auto"]];
    for (const option of options) {
      expect(await run(store("own"), ...option)).toMatchObject({ bytesRead: BYTES });
    }
    expect(await run(store("own"), "--name=other")).toMatchObject({ bytesRead: 0 });
    expect(await run(store("own"), "--exclude=left-*")).toMatchObject({ bytesRead: 0 });
    expect(await run(store("own"), "--references=auto")).toMatchObject({ bytesRead: BYTES });
  });

  it.each(["path-infos.sqlite", "directories.sqlite", "blobs"])(
    "stores it again where the store has lost its %s",
    async (lost) => {
      const first = await run(store("own"));
      const place = join(folder.path, `store ${caches} own`);
      for (const name of readdirSync(place)) {
        if (name.startsWith(lost)) rmSync(join(place, name), { recursive: true });
      }
      const bytesNew = lost === "blobs" ? BYTES : 0;
      const counts = { bytesNew, bytesDeduplicated: BYTES - bytesNew };
      expect(await run(store("own"))).toEqual({ ...first, ...counts });
      const { stdout } = await tvixStore(["cat", `${first.storePath}/sub/file`, ...store("own")]);
      expect(stdout.length).toBeGreaterThan(0);
      expect(await run(store("own"))).toMatchObject({ bytesRead: 0 });
    },
  );

  it("does without the folder for caches where that cannot be used", async () => {
    mkdirSync(env.XDG_CACHE_HOME!);
    await run(store("own"));
    const cache = join(env.XDG_CACHE_HOME!, "tvix-store");
    const [record] = readdirSync(join(cache, "imports"));
    writeFileSync(join(cache, "imports", record!), "{");
    expect(await run(store("own"))).toMatchObject({ bytesRead: BYTES, bytesNew: 0 });
    expect(await run(store("own"))).toMatchObject({ bytesRead: 0 });
    rmSync(join(cache, "imports"), { recursive: true });
    writeFileSync(join(cache, "imports"), "");
    expect(await run(store("own"))).toMatchObject({ bytesRead: BYTES, bytesNew: 0 });
  });

  it("forgets what nobody has imported for long", async () => {
    await run(store("own"));
    const imports = join(env.XDG_CACHE_HOME!, "tvix-store/imports");
    const [record] = readdirSync(imports);
    const old = join(imports, "0".repeat(64));
    renameSync(join(imports, record!), old);
    const then = new Date(Date.now() - 31 * 24 * 3600 * 1000);
    utimesSync(old, then, then);
    await run(store("own"));
    expect(readdirSync(imports)).toEqual([record]);
  });
});
