import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  compositionIn,
  type Daemon,
  embeddedIn,
  startServing,
  temporaryFolder,
  tvixStore,
} from "./harness.ts";
import { shell } from "./mounted.ts";

const GUEST: string = join(import.meta.dirname, "virtiofs-guest.py");

describeWithTools("virtiofs", ["python3", "sha256sum"], () => {
  const folder = temporaryFolder();
  const socket = join(folder.path, "socket");
  const contents = seededBytes("virtiofs", 3_000_000);
  const sum = createHash("sha256").update(contents).digest("hex");
  let serving: Daemon;
  let name: string;

  beforeAll(async () => {
    const store = embeddedIn(join(folder.path, "store"));
    const tree = join(folder.path, "tree");
    mkdirSync(tree);
    writeFileSync(join(tree, "file"), contents);
    writeFileSync(join(tree, "note"), "note\n");
    mkdirSync(join(tree, "folder"));
    writeFileSync(join(tree, "folder", "inner"), "");
    symlinkSync("folder", join(tree, "link"));
    const { stdout } = await tvixStore(["import", tree, ...store]);
    name = stdout.trim().replace("/nix/store/", "");
    serving = await startServing(["virtiofs", ...store, socket], { message: "listening" });
  });
  afterAll(async () => {
    await serving?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const readFile = () => shell('python3 "$1" "$2" well "$3" file | sha256sum', GUEST, socket, name);

  it("shows files to what speaks vhost-user, also to several at once", async () => {
    const found = await Promise.all(Array.from({ length: 8 }, readFile));
    expect(found).toEqual(found.map(() => `${sum}  -\n`));
  });

  it("lists store paths, shows digests, looks up anew and keeps contents in a folder, as it is told to", async () => {
    const composition = join(folder.path, "stores.toml");
    writeFileSync(composition, compositionIn(join(folder.path, "store")));
    const cache = join(folder.path, "cache");
    const other = join(folder.path, "other socket");
    await using _other = await startServing([
      ...["virtiofs", other, `--store-composition=${composition}`, "--list-root", "--show-xattr"],
      ...["--threads=2", "--timeout=30", "--absent-ttl=0", "--cache-size=8"],
      ...[`--cache-dir=${cache}`, "--cache-dir-size=10"],
    ]);
    const later = join(folder.path, "later");
    writeFileSync(later, "later");
    // Its store path is known only by then, so a first import goes elsewhere.
    const elsewhere = await tvixStore([
      "import",
      later,
      ...embeddedIn(join(folder.path, "second")),
    ]);
    const absent = elsewhere.stdout.trim().replace("/nix/store/", "");
    const look = async () => {
      const args = [GUEST, other, name, "file", absent];
      return (await shell('python3 "$1" "$2" look "$3" "$4" "$5"', ...args)).trim().split("\n");
    };
    const digests = "user.tvix.castore.blob.digest user.snix.castore.blob.digest";
    expect(await look()).toEqual([".", "..", name, digests, "absent"]);
    await tvixStore(["import", later, ...embeddedIn(join(folder.path, "store"))]);
    expect((await look()).at(-1)).toBe("found");
    await expect.poll(() => readdirSync(cache, { recursive: true }).length).toBeGreaterThan(16);
  });

  it("takes no socket on which another process listens", async () => {
    const { status, stderr } = await tvixStore([
      ...["virtiofs", socket, ...embeddedIn(join(folder.path, "store"))],
    ]);
    expect([status, stderr]).toEqual([
      1,
      `tvix-store: Cannot listen on "${socket}": a running process already listens there; stop it, or choose another path\n`,
    ]);
    expect(await readFile()).toContain(sum);
  });

  /** Returns how many descriptors the server has open. */
  const countOpened = () => {
    const folder = `/proc/${serving.process.pid}/fd`;
    const targets = readdirSync(folder).map((fd) => readlinkSync(join(folder, fd)));
    // Pipes that came with no message stay open: other threads might have opened them.
    return targets.filter((target) => !target.startsWith("pipe:")).length;
  };

  describeWithTools("in a real virtual machine", ["run-guest"], (launcher) => {
    // Boots a kernel, without KVM: everything in one start.
    it("shows a tree to the kernel of a guest", { timeout: 110_000 }, async () => {
      const script = `
        cd /mnt/${name} && sha256sum file && ls -l file link && cat link/../note
        find . | sort; ls /mnt 2>&1; touch new 2>&1; stat -c '%a %Y' file
        dd if=file bs=1000 skip=1500 count=1 2>/dev/null | sha256sum`;
      const found = await shell('"$1" "$2" "$3"', launcher, socket, script);
      const part = createHash("sha256").update(contents.subarray(1_500_000, 1_501_000));
      expect(found.split("\n").map((line) => line.trimEnd())).toEqual([
        `${sum}  file`,
        expect.stringMatching(/^-r--r--r--.* 3000000 .* file$/),
        expect.stringMatching(/^lrwxrwxrwx.* link -> folder$/),
        "note",
        ...[".", "./file", "./folder", "./folder/inner", "./link", "./note"],
        expect.stringContaining("Operation not permitted"),
        expect.stringContaining("Read-only file system"),
        "444 1",
        `${part.digest("hex")}  -`,
        "status 0",
        "",
      ]);
    });
  });

  it("survives guests and peers that break the protocol, and serves others then", async () => {
    await readFile();
    const before = countOpened();
    expect(await shell('python3 "$1" "$2" badly', GUEST, socket)).toBe("done\n");
    expect(await readFile()).toContain(sum);
    const messages = serving.log.map(({ msg }) => String(msg));
    for (const reason of [
      "found a loop",
      "found none there",
      "expected 1 descriptors in message 12, found 0",
    ]) {
      expect(messages).toContainEqual(expect.stringContaining(reason));
    }
    expect(messages).not.toContainEqual(expect.stringContaining("EBADF"));
    await expect.poll(countOpened, { timeout: 10_000 }).toBeLessThanOrEqual(before);
  });
});
