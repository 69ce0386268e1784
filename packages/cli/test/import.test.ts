import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { blake3Digest } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { openPathInfoService, StorePath } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  addressesOf,
  countPathInfos,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";
import { canMount, mountSmallDisk, unmount } from "./small-disk.ts";

let folder: ReturnType<typeof temporaryFolder>;
let store: string;
let file: string;
beforeEach(() => {
  folder = temporaryFolder();
  store = join(folder.path, "store");
  file = join(folder.path, "file");
  writeFileSync(file, "contents");
});
afterEach(() => folder[Symbol.dispose]());

/** The absolute paths that a store path refers to. */
async function referencesOf(storePath: string): Promise<string[]> {
  await using service = await openPathInfoService(`sqlite://${store}/path-infos.sqlite`);
  const pathInfo = await service.get(StorePath.parseAbsolute(storePath).hashPart);
  return pathInfo!.references.map((reference) => reference.toAbsolutePath());
}

describe("tvix-store import", () => {
  it("prints the store paths in the order given, one a line, and nothing else", async () => {
    mkdirSync(join(folder.path, "zeta"));
    const paths = [join(folder.path, "zeta"), file, `${join(folder.path, "zeta")}/`];
    const outcome = await tvixStore(["import", ...paths, ...embeddedIn(store)]);
    expect(outcome.status).toBe(0);
    expect(outcome.stderr).toBe("");
    const [zeta, one, again, ...rest] = outcome.stdout.split("\n");
    expect(zeta).toMatch(/^\/nix\/store\/[0-9a-z]{32}-zeta$/);
    expect(one).toMatch(/^\/nix\/store\/[0-9a-z]{32}-file$/);
    expect(again).toBe(zeta);
    expect(rest).toEqual([""]);
  });

  it("takes the services from the environment", async () => {
    const addresses = addressesOf(embeddedIn(store));
    const env = {
      BLOB_SERVICE_ADDR: addresses.blobServiceAddr,
      DIRECTORY_SERVICE_ADDR: addresses.directoryServiceAddr,
      PATH_INFO_SERVICE_ADDR: addresses.pathInfoServiceAddr,
    };
    expect(await tvixStore(["import", file], { env })).toMatchObject({ status: 0, stderr: "" });
    expect(await countPathInfos(store)).toBe(1);
  });

  it("names a relative path by where it leads", async () => {
    const cwd = join(folder.path, "here");
    mkdirSync(cwd);
    const outcome = await tvixStore(["import", ".", ...embeddedIn(store)], { cwd });
    expect(outcome.stdout).toMatch(/-here\n$/);
  });

  it("registers to which store paths the contents refer, when asked to", async () => {
    const user = join(folder.path, "user");
    const dependency = await tvixStore(["import", file, ...embeddedIn(store)]);
    writeFileSync(user, `exec ${dependency.stdout.trim()}`);
    const both = await tvixStore(["import", user, user, ...embeddedIn(store), "--references"]);
    expect(both).toMatchObject({ status: 0, stderr: "" });
    const [storePath] = both.stdout.split("\n");
    const plain = await tvixStore(["import", user, ...embeddedIn(store)]);
    expect(plain.stdout.trim()).not.toBe(storePath);
    expect(await referencesOf(storePath!)).toEqual([dependency.stdout.trim()]);
    expect(await referencesOf(plain.stdout.trim())).toEqual([]);
  });

  it("finds references to what the same command imported before", async () => {
    const alone = await tvixStore(["import", file, ...embeddedIn(store)]);
    const user = join(folder.path, "user");
    writeFileSync(user, `exec ${alone.stdout.trim()}`);
    const other = join(folder.path, "other");
    const args = ["import", "--references=auto", file, user, ...embeddedIn(other)];
    const [dependency, storePath] = (await tvixStore(args)).stdout.split("\n");
    store = other;
    expect(await referencesOf(storePath!)).toEqual([dependency]);
  });

  it("gives the same store path to the same contents, and stores them once", async () => {
    writeFileSync(join(folder.path, "large"), Buffer.alloc(1_000_000, "large contents "));
    const args = ["import", join(folder.path, "large"), ...embeddedIn(store)];
    const first = await tvixStore(args);
    const packs = () => execFileSync("du", ["-sb", join(store, "blobs/packs")]).toString();
    const before = packs();
    expect(await tvixStore(args)).toEqual(first);
    expect(packs()).toBe(before);
    expect(await countPathInfos(store)).toBe(1);
  });

  it.each([
    ["a path that does not exist", () => "no-such-path", "no-such-path"],
    [
      "a name that is no store path name",
      () => {
        writeFileSync(join(folder.path, "with space"), "");
        return join(folder.path, "with space");
      },
      "with space",
    ],
    [
      "a special file inside a folder",
      () => {
        mkdirSync(join(folder.path, "special"));
        execFileSync("mkfifo", [join(folder.path, "special/pipe")]);
        return join(folder.path, "special");
      },
      "found a fifo",
    ],
    ["the root folder, which has no name", () => "/", "name"],
  ])("refuses %s with status 1 and leaves no PathInfo", async (_, makePath, reason) => {
    const outcome = await tvixStore(["import", makePath(), ...embeddedIn(store)]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(/^tvix-store: .*\n$/);
    expect(outcome.stderr).toContain(reason);
    expect(await countPathInfos(store)).toBe(0);
  });

  it("goes on with the other paths when one is refused, and prints what is stored in order", async () => {
    const paths = ["no-such-path", file, "neither", folder.path];
    const outcome = await tvixStore(["import", ...paths, "--exclude=store", ...embeddedIn(store)]);
    expect(outcome.status).toBe(1);
    expect(outcome.stdout).toMatch(/^\S+-file\n\S+-tvix-store-\w+\n$/);
    expect(outcome.stderr).toMatch(
      /^tvix-store: .*no-such-path.*\ntvix-store: .*neither.*\ntvix-store: 2 of 4 paths failed\n$/,
    );
    expect(await countPathInfos(store)).toBe(2);
  });

  it("does not try the other paths when a store is out of reach", async () => {
    const address = `grpc+unix://${folder.path}/none?retry_ms=0`;
    const paths = Array.from({ length: 9 }, () => file);
    const outcome = await tvixStore(["import", ...paths, ...throughDaemon(address)]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(
      /^tvix-store: .*\ntvix-store: \d of 9 paths failed; \d were not tried\n$/,
    );
  });

  it("leaves out what is excluded, at any depth or by its path", async () => {
    const tree = join(folder.path, "tree");
    mkdirSync(join(tree, "src/node_modules/lib"), { recursive: true });
    mkdirSync(join(tree, "out"));
    for (const name of ["src/main.c", "src/main.o", "src/.hidden.o", "out/a", "src/out"]) {
      writeFileSync(join(tree, name), name);
    }
    execFileSync("mkfifo", [join(tree, "src/node_modules/pipe")]); // which no import takes
    const expected = join(folder.path, "expected");
    mkdirSync(join(expected, "src"), { recursive: true });
    for (const name of ["src/main.c", "src/out"]) writeFileSync(join(expected, name), name);
    const excluding = ["--exclude", "*.o", "--exclude", "node_modules/", "--exclude", "/out"];
    const [found, wanted] = await Promise.all([
      tvixStore(["import", tree, "--name=x", ...excluding, ...embeddedIn(store)]),
      tvixStore(["import", expected, "--name=x", ...embeddedIn(join(folder.path, "other"))]),
    ]);
    expect(found).toMatchObject({ status: 0, stderr: "" });
    expect(found).toEqual(wanted);
  });

  it("takes the possible references from a file", async () => {
    const user = join(folder.path, "user");
    const other = join(folder.path, "other");
    writeFileSync(other, "other contents");
    const both = await tvixStore(["import", file, other, ...embeddedIn(store)]);
    writeFileSync(user, both.stdout);
    const [first] = both.stdout.split("\n");
    const list = join(folder.path, "list");
    writeFileSync(list, `${first}\n\n`);
    const run = () => tvixStore(["import", user, `--references=${list}`, ...embeddedIn(store)]);
    const found = await run();
    expect(found.stderr).toBe("");
    expect(await referencesOf(found.stdout.trim())).toEqual([first]);
    writeFileSync(list, `${first}\nnonsense\n`);
    expect((await run()).stderr).toMatch(/^tvix-store: .*list", line 2: .*"nonsense".*\n$/);
  });

  it("tells in JSON what was stored, and how much of it was new", async () => {
    const half = seededBytes("half", 300_000);
    writeFileSync(file, half);
    const run = async (...services: string[]) => {
      const { stdout } = await tvixStore(["import", "--json", "--reread", file, ...services]);
      return JSON.parse(stdout);
    };
    const listen = `${folder.path}/sock`;
    await using _daemon = await startDaemon([
      `--listen-address=${listen}`,
      ...embeddedIn(join(folder.path, "of daemon")),
    ]);
    for (const services of [embeddedIn(store), throughDaemon(`grpc+unix://${listen}`)]) {
      const first = await run(...services);
      expect(first).toMatchObject({
        source: file,
        storePath: expect.stringMatching(/-file$/),
        root: { type: "file", digest: `${blake3Digest(half)}`, executable: false },
        references: [],
        narHash: expect.stringMatching(/^sha256-.{43}=$/),
        narSize: 300_000 + 112,
        bytesRead: 300_000,
        bytesNew: 300_000,
        bytesDeduplicated: 0,
      });
      const again = { ...first, bytesNew: 0, bytesDeduplicated: 300_000 };
      expect(await run(...services)).toEqual(again);
    }
  });

  it.each([
    [[], 0o700],
    [["--store-mode", "0750"], 0o750],
  ])("makes a store for those who may use it, with %j", async (options, mode) => {
    using place = temporaryFolder();
    const state = join(place.path, "state");
    const outcome = await tvixStore(["import", file, ...options, ...embeddedIn(state)]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    const permissions = readdirSync(state, { recursive: true, withFileTypes: true }).map(
      (entry) => statSync(join(entry.parentPath, entry.name)).mode & 0o777,
    );
    expect(new Set([statSync(state).mode & 0o777, ...permissions])).toEqual(
      new Set([mode, mode & 0o666]),
    );
  });

  it("warns of a symlink that is all there is to store", async () => {
    const targets = [
      "/nowhere",
      "/nix/store/nothing",
      "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-none",
    ];
    const links = targets.map((target, i) => {
      const link = join(folder.path, `result-${i}`);
      symlinkSync(target, link);
      return link;
    });
    const outcome = await tvixStore(["import", ...links, file, ...embeddedIn(store)]);
    expect(outcome.status).toBe(0);
    expect(outcome.stdout).toMatch(/^(\S+-result-\d\n){3}\S+-file\n$/);
    expect(outcome.stderr).toMatch(/^(tvix-store: warning: .*\n){3}$/);
    for (const text of [...links.map((link) => JSON.stringify(link)), ...targets]) {
      expect(outcome.stderr).toContain(text);
    }
  });

  it("says nothing of symlinks in a folder", async () => {
    const tree = join(folder.path, "tree");
    mkdirSync(tree);
    symlinkSync("nowhere", join(tree, "link"));
    const outcome = await tvixStore(["import", tree, ...embeddedIn(store)]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
  });

  it("tells that a database is corrupt, and leaves it as it is", async () => {
    mkdirSync(store);
    writeFileSync(join(store, "path-infos.sqlite"), "this is no database at all, not in the least");
    const outcome = await tvixStore(["import", file, ...embeddedIn(store)]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toContain("path-infos.sqlite");
    expect(readdirSync(store)).toContain("path-infos.sqlite");
  });
});

describe.skipIf(!canMount)(
  `a full disk${canMount ? "" : " (missing: permission to mount one)"}`,
  () => {
    beforeEach(() => {
      mkdirSync(store);
      mountSmallDisk(store, 4);
    });
    afterEach(() => {
      unmount(store);
    });

    it("is told by an import through the daemon, which goes on when there is room again", async () => {
      const ballast = join(store, "ballast");
      writeFileSync(ballast, Buffer.alloc(500_000)); // chunks that were stored may leave less than is needed
      const large = join(folder.path, "large");
      writeFileSync(large, seededBytes("large", 20_000_000));
      const address = `${folder.path}/sock`;
      await using _daemon = await startDaemon([
        `--listen-address=${address}`,
        ...embeddedIn(store),
      ]);
      const services = throughDaemon(`grpc+unix://${address}`);
      const outcome = await tvixStore(["import", large, ...services]);
      expect(outcome).toMatchObject({ status: 1, stdout: "" });
      expect(outcome.stderr).toMatch(/^tvix-store: .*no space left on device.*\n$/);
      rmSync(ballast);
      expect(await tvixStore(["import", file, ...services])).toMatchObject({ status: 0 });
      expect(await countPathInfos(store)).toBe(1);
    });
  },
);
