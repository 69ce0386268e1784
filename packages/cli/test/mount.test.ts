import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { B3Digest, blake3, putBlob } from "@tvix/castore";
import { ChunkList } from "@tvix/castore/chunk-list";
import { readTreeSpecs, seededBytes, writeTree } from "@tvix/conformance";
import { StorePath } from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import { addressesOf, embeddedIn, MAIN, temporaryFolder, tvixStore } from "./harness.ts";
import { describeWithFuse, type Mounted, shell, startMount } from "./mounted.ts";

/** What `tvix-store import` printed, as paths below a mount. */
const namesOf = (stdout: string) => stdout.replaceAll("/nix/store/", "").trim().split("\n");

describeWithFuse("a mount", () => {
  const folder = temporaryFolder();
  const trees = join(folder.path, "trees");
  const store = embeddedIn(join(folder.path, "store"));
  let mounted: Mounted;
  /** The trees, and what they are called in the store, in the same order. */
  let sources: string[];
  let names: string[];

  beforeAll(async () => {
    mkdirSync(trees);
    sources = [];
    for (const spec of readTreeSpecs().filter(({ entries }) => entries[0]?.type !== "symlink")) {
      const path = join(trees, spec.tree, spec.name);
      mkdirSync(join(trees, spec.tree));
      await writeTree(spec, path);
      sources.push(path);
    }
    const many = join(trees, "many");
    mkdirSync(join(many, "inner"), { recursive: true });
    for (let i = 0; i < 3000; i++)
      writeFileSync(join(many, `inner/${i}-é`), i % 3 ? `${i}` : "same");
    writeFileSync(join(many, "large"), seededBytes("mounted", 5_000_000));
    writeFileSync(join(many, "program"), "#!/bin/sh\necho ran\n", { mode: 0o755 });
    symlinkSync("inner/7-é", join(many, "link"));
    symlinkSync("nowhere", join(many, "dangling"));
    const bare = join(trees, "bare");
    symlinkSync("elsewhere", bare);
    sources.push(bare, many);
    const { stdout, stderr } = await tvixStore(["import", ...sources, ...store]);
    expect(stderr).toMatch(/^tvix-store: warning: stored only the symlink [^\n]*\n$/);
    names = namesOf(stdout);
    mounted = await startMount([
      ...["--list-root", "--show-xattr", "--absent-ttl=0", "--cache-size=8"],
      ...store,
    ]);
  });
  afterAll(async () => {
    await mounted?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it("logs the absolute path of its folder", () => {
    expect(mounted.log.find(({ msg }) => msg === "mounted")).toMatchObject({
      folder: mounted.folder,
    });
  });

  it("shows what was imported: diff, find and sha256sum tell no difference", async () => {
    const script = `
      compare() {
        diff -r --no-dereference "$1" "$2"
        look='cd "$1" 2>/dev/null || cd "$(dirname "$1")"; find . -printf "%y %P %l\\n" | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum'
        if [ -d "$1" ] && [ ! -L "$1" ]; then cmp <(bash -c "$look" bash "$1") <(bash -c "$look" bash "$2"); fi
      }
      while [ $# -gt 0 ]; do compare "$1" "$2"; shift 2; done
    `;
    const pairs = sources.flatMap((path, i) => [path, join(mounted.folder, names[i]!)]);
    expect(await shell(script, ...pairs)).toBe("");
  });

  it("shows modes, times and lengths as in a Nix store, and lists all store paths", async () => {
    const at = join(mounted.folder, names.at(-1)!);
    const script = `cd "$1"; stat -c '%n %a %u %g %Y %s %F' large program link inner; ls "$2"`;
    expect((await shell(script, at, mounted.folder)).trim().split("\n")).toEqual([
      "large 444 0 0 1 5000000 regular file",
      "program 555 0 0 1 19 regular file",
      "link 777 0 0 1 10 symbolic link",
      "inner 555 0 0 1 0 directory",
      ...[...names].sort(),
    ]);
    expect(await shell(`"$1/program"; cat "$1/link"`, at)).toBe("ran\n7");
  });

  it("shows at once what is stored after it was looked for, with --absent-ttl 0", async () => {
    const file = join(folder.path, "later");
    writeFileSync(file, "later");
    // Its store path is known only by then, so a first import goes elsewhere.
    const elsewhere = await tvixStore(["import", file, ...embeddedIn(join(folder.path, "other"))]);
    const [name] = namesOf(elsewhere.stdout);
    const look = () => shell('cat "$1" 2>/dev/null || echo absent', join(mounted.folder, name!));
    expect(await look()).toBe("absent\n");
    await tvixStore(["import", file, ...store]);
    expect(await look()).toBe("later");
  });

  it("reads a file of more than 4 GiB at any offset", async () => {
    const block = seededBytes("block of a long file", 8 * 1024 * 1024);
    const blocks = 513;
    const end = Buffer.from("the end");
    const hasher = blake3.createHasher();
    for (let i = 0; i < blocks; i++) hasher.update(block);
    hasher.update(end);
    const digest = B3Digest.fromBytes(hasher.digest());
    const size = blocks * block.length + end.length;
    const storePath = StorePath.from(new Uint8Array(20).fill(7), "long");
    {
      await using services = await openServices(addressesOf(store));
      const { blobService, pathInfoService } = services;
      await using reader = await blobService.open(await putBlob(blobService, block));
      const last = { digest: await putBlob(blobService, end), size: end.length };
      const chunks = Array.from({ length: blocks }, () => [...reader!.chunks]).flat();
      await blobService.putList(digest, ChunkList.of([...chunks, last]), { proven: true });
      const node = { type: "file", digest, size: BigInt(size), executable: false } as const;
      const sums = { narSize: 1n, narSha256: new Uint8Array(32) };
      await pathInfoService.put({ storePath, node, references: [], signatures: [], ...sums });
    }
    const path = join(mounted.folder, storePath.toString());
    expect(await shell('stat -c %s "$1"', path)).toBe(`${size}\n`);
    const part = 'dd if="$1" skip="$2" count=100 bs=1M iflag=skip_bytes,count_bytes status=none';
    for (const at of [0, 2 ** 31 - 50, 2 ** 32 - 50, 2 ** 32 + 12_345, size - 50]) {
      const inBlock = at % block.length;
      const expected = Buffer.concat([block, at < size - 100 ? block : end]);
      const found = Buffer.from(await shell(part, path, String(at)), "latin1");
      expect(found).toEqual(expected.subarray(inBlock, inBlock + 100));
    }
  });

  it("refuses every change", async () => {
    const at = join(mounted.folder, names.at(-1)!);
    const script = `
      cd "$1"
      for change in "touch new" "mkdir new" "rm large" "mv large new" "ln -s a new" "chmod 700 program" "truncate -s 0 large"; do
        if $change 2>/dev/null; then echo "allowed: $change"; fi
      done
    `;
    expect(await shell(script, at)).toBe("");
  });

  it("gives random reads of any length, as fsx makes them, the bytes of the original", async () => {
    const script = `
import os, random, sys
random.seed(19)
a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:3])
size = os.fstat(a).st_size
assert os.fstat(b).st_size == size
for i in range(1500):
    at, n = random.randrange(size + 5000), random.choice((1, 511, 4096, 70000, 300000))
    if i % 100 == 0: os.posix_fadvise(b, 0, 0, os.POSIX_FADV_DONTNEED)
    x, y = os.pread(a, n, at), os.pread(b, n, at)
    assert x == y, (i, at, n, len(x), len(y))
`;
    const large = join(mounted.folder, names.at(-1)!, "large");
    await shell('python3 -c "$1" "$2" "$3"', script, join(sources.at(-1)!, "large"), large);
  });

  it("runs a program with its libraries out of it", async () => {
    const prefix = join(folder.path, "closure");
    const script = `
      mkdir -p "$1/lib" "$1/bin"; cp /bin/bash "$1/bin"
      ldd /bin/bash | grep -o '/[^ ]*' | xargs -I{} cp -L {} "$1/lib"
    `;
    await shell(script, prefix);
    const [name] = namesOf((await tvixStore(["import", prefix, ...store])).stdout);
    const run = `cd "$1/lib"; "$(ls "$PWD"/ld-linux*)" --library-path "$PWD" ../bin/bash -c 'echo $((6*7))'`;
    expect(await shell(run, join(mounted.folder, name!))).toBe("42\n"); // imported after it was mounted
  });

  it("is unmounted by SIGTERM, and by whoever unmounts it; then the process ends well", async () => {
    const one = await startMount(store);
    one.process.kill("SIGTERM");
    expect(await one.exit).toBe(0);
    expect(await shell('mountpoint -q "$1" || echo gone', one.folder)).toBe("gone\n");
    await one[Symbol.asyncDispose]();
    await using two = await startMount(store);
    await shell('umount "$1"', two.folder);
    expect(await two.exit).toBe(0);
  });

  it("goes on in the background, and returns once it is mounted, or with the reason why not", async () => {
    await using place = await startMount(store);
    place.process.kill("SIGTERM");
    await place.exit;
    // Its output goes to a file: a pipe would stay open for as long as it runs.
    const script = 'log=$1; folder=$2; shift 2; "$@" 2>"$log"; umount "$folder"; cat "$log"';
    const log = join(folder.path, "log");
    const args = ["mount", "--daemonize", "--threads=2", ...store, place.folder];
    const command = [process.execPath, MAIN, ...args];
    expect(await shell(script, log, place.folder, ...command)).toContain('"mounted"');
    const { status, stderr } = await tvixStore(["mount", "--daemonize", "/nowhere", ...store]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("expected a folder")]);
  });

  it("finds again what the kernel has forgotten, and keeps what a program still uses", async () => {
    const script = `
      cd "$1"; exec 3<large; head -c 1000 <&3 >/dev/null
      look() { find . -printf '%i %y %P %s %l\\n' | sort; }
      look > "$2/before"
      mount -i -o remount,ro "$3" # which has the kernel forget all that nobody uses
      look > "$2/after"; cmp "$2/before" "$2/after"; wc -l < "$2/after"
      cat <&3 | sha256sum
    `;
    const at = join(mounted.folder, names.at(-1)!);
    const found = await shell(script, at, folder.path, mounted.folder);
    const rest = await shell('tail -c +1001 "$1/large" | sha256sum', sources.at(-1)!);
    expect(found).toBe(`3006\n${rest}`);
  });

  it("reads and verifies contents in as many threads as --threads says", async () => {
    const countThreads = async (threads: number) => {
      const cache = `--cache-dir=${join(folder.path, `cache-${threads}`)}`; // the thread of the device then reads nothing
      await using one = await startMount([...store, cache, `--threads=${threads}`]);
      await shell('cat "$1/large" >/dev/null', join(one.folder, names.at(-1)!));
      return readdirSync(`/proc/${one.process.pid}/task`).length;
    };
    const [one, four] = [await countThreads(1), await countThreads(4)];
    expect(four - one).toBe(3);
  });

  it("serves programs that use it when it is unmounted, until they end", async () => {
    await using one = await startMount(store);
    const script = `
      exec 3<"$1/large"; head -c 10 <&3 >/dev/null; kill -TERM $2
      while mountpoint -q "$3"; do sleep 0.02; done
      sha256sum <&3
    `;
    const args = [join(one.folder, names.at(-1)!), String(one.process.pid), one.folder];
    const found = await shell(script, ...args);
    const whole = await shell('tail -c +11 "$1/large" | sha256sum', sources.at(-1)!);
    expect(found).toBe(whole);
    expect(await one.exit).toBe(0);
  });

  it("says what to do about a file system whose process was killed", async () => {
    await using one = await startMount(store);
    one.process.kill("SIGKILL");
    await one.exit;
    const { status, stderr } = await tvixStore(["mount", one.folder, ...store]);
    expect(status).toBe(1);
    expect(stderr).toContain(`take it away with "umount -l ${one.folder}"`);
  });

  it("refuses what is no folder, with the reason", async () => {
    for (const [path, reason] of [
      [join(folder.path, "nothing"), "expected a folder, found nothing"],
      [join(sources.at(-1)!, "large"), "expected a folder, found a file"],
    ] as const) {
      const { status, stderr } = await tvixStore(["mount", path, ...store]);
      expect([status, stderr]).toEqual([1, expect.stringContaining(reason)]);
    }
  });
});
