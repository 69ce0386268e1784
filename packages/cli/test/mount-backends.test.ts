import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes, startServer } from "@tvix/conformance";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import {
  type Daemon,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";
import { describeWithFuse, shell, startMount } from "./mounted.ts";

/** Reads all files of one folder with 64 threads, in orders that differ, and compares them with another folder. */
const READERS = `
import os, random, sys, threading
source, mounted = sys.argv[1:3]
wrong, read = [], 0
def reader(seed):
    global read
    names = sorted(os.listdir(source)); random.Random(seed).shuffle(names)
    for name in names:
        with open(os.path.join(source, name), "rb") as a, open(os.path.join(mounted, name), "rb") as b:
            if a.read() != b.read(): wrong.append(name)
        read += 1
        if read == 5: print("reading", flush=True)
threads = [threading.Thread(target=reader, args=(i,)) for i in range(64)]
for t in threads: t.start()
for t in threads: t.join()
print(f"{read} read, {len(wrong)} wrong")
`;

/** Reads a file at random places with 8 threads, and compares that with another file. Prints a line after the first reads. */
const RANDOM_READERS = `
import os, random, sys, threading
a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:3])
size = os.fstat(a).st_size
wrong = []
def reader(seed):
    rng = random.Random(seed)
    for i in range(150):
        at, n = rng.randrange(size), rng.choice((1, 4096, 70000))
        if i % 10 == 0: os.posix_fadvise(b, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(a, n, at) != os.pread(b, n, at): wrong.append(at)
        if i == 20 and seed == 0: print("reading", flush=True)
threads = [threading.Thread(target=reader, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(len(wrong), "wrong")
`;

describeWithFuse("a mount over a store elsewhere", () => {
  const folder = temporaryFolder();
  const tree = join(folder.path, "tree");
  const socket = join(folder.path, "socket");
  let daemon: Daemon;
  let name: string;

  const serve = () =>
    startDaemon([
      ...embeddedIn(join(folder.path, "store")),
      ...["--listen-address", socket, "127.0.0.1:0"],
    ]);
  const importTree = async (store: readonly string[]) => {
    const { stdout } = await tvixStore(["import", tree, ...store]);
    return stdout.trim().replace("/nix/store/", "");
  };

  beforeAll(async () => {
    mkdirSync(tree);
    for (let i = 0; i < 40; i++) {
      writeFileSync(join(tree, `file-${i}`), seededBytes(`backends-${i}`, 1 + i ** 2 * 300));
    }
    daemon = await serve();
    name = await importTree(throughDaemon(`grpc+unix://${socket}`));
  });
  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** Runs a program of Python, and kills the daemon and starts it again once the program reads. Returns what it prints. */
  const readMeanwhile = async (...args: readonly string[]) => {
    const options = { timeout: 50_000, killSignal: "SIGKILL" } as const;
    const readers = execFile("python3", ["-c", ...args], options);
    let printed = "";
    const isReading = new Promise<void>((resolve) =>
      readers.stdout!.on("data", (text) => {
        printed += text;
        resolve();
      }),
    );
    const ended = new Promise<number | null>((resolve) => readers.once("close", resolve));
    await isReading;
    await daemon[Symbol.asyncDispose]();
    daemon = await serve();
    expect(await ended).toBe(0);
    return printed;
  };

  it("gives 64 readers what they read while the daemon is killed and started again", async () => {
    await using mounted = await startMount(throughDaemon(`grpc+unix://${socket}`));
    const printed = await readMeanwhile(READERS, tree, join(mounted.folder, name));
    expect(printed).toBe("reading\n2560 read, 0 wrong\n");
  });

  it("gives random reads in a long file what is in it, also while the daemon is killed and started again", async () => {
    const file = join(folder.path, "long");
    writeFileSync(file, seededBytes("backends-long", 20_000_000));
    const store = throughDaemon(`grpc+unix://${socket}`);
    const { stdout } = await tvixStore(["import", file, ...store]);
    await using mounted = await startMount([...store, "--cache-size=1"]);
    const at = join(mounted.folder, stdout.trim().replace("/nix/store/", ""));
    expect(await readMeanwhile(RANDOM_READERS, file, at)).toBe("reading\n0 wrong\n");
  });

  it("fails reads by ETIMEDOUT while the daemon hangs, and goes on when it does", async () => {
    const args = [...throughDaemon(`grpc+unix://${socket}`), "--timeout=1"];
    await using mounted = await startMount(args);
    const at = join(mounted.folder, name);
    const read = (file: string) =>
      shell('if cat "$1/$2" 2>&1 >/dev/null; then echo read; fi', at, file);
    expect(await read("file-30")).toBe("read\n");
    daemon.process.kill("SIGSTOP");
    try {
      expect(await read("file-31")).toContain("Connection timed out");
    } finally {
      daemon.process.kill("SIGCONT");
    }
    expect(await read("file-32")).toBe("read\n");
  });

  it("fails a read by ETIMEDOUT when the daemon stays away, says so, and goes on when it is back", async () => {
    const args = [...throughDaemon(`grpc+unix://${socket}`), "--timeout=1"];
    await using mounted = await startMount(args);
    const at = join(mounted.folder, name);
    await shell('ls "$1"', at);
    await daemon[Symbol.asyncDispose]();
    const cat = 'if cat "$1/file-7" 2>&1 >/dev/null; then echo read; fi';
    expect(await shell(cat, at)).toContain("Connection timed out");
    expect(mounted.log).toContainEqual(
      expect.objectContaining({ errno: 110, code: "unavailable", msg: expect.any(String) }),
    );
    daemon = await serve();
    expect(await shell(cat, at)).toBe("read\n");
  });

  it("leaves what was read to the page cache: reading it again needs neither memory nor the daemon", async () => {
    const args = [...throughDaemon(`grpc+unix://${socket}`), "--timeout=1", "--cache-size=1"];
    await using mounted = await startMount(args); // which holds a sixth of the tree
    const at = join(mounted.folder, name);
    const [unread, others] = [join(at, "file-38"), '--exclude=file-38 "$1" "$2"'];
    await shell(`diff -r ${others}`, tree, at);
    await daemon[Symbol.asyncDispose]();
    await shell(`diff -r ${others}`, tree, at);
    expect(await shell('cat "$1" 2>&1 >/dev/null || true', unread)).toContain("timed out");
    daemon = await serve();
  });

  it("ends a program that waits for a daemon when it is interrupted", async () => {
    await using mounted = await startMount(throughDaemon(`grpc+unix://${socket}`));
    await daemon[Symbol.asyncDispose]();
    const script = 'timeout -s INT 0.3 ls "$1" || echo "ended by $?"';
    expect(await shell(script, join(mounted.folder, name))).toBe("ended by 124\n");
    daemon = await serve();
  });

  it("shows a binary cache of Nix by its path infos, and fetches what is looked up", async () => {
    const address = `nix+http://${daemon.addresses.find((address) => address.includes("127.0.0.1"))}`;
    await using mounted = await startMount([
      ...["--blob-service-addr=memory://", "--directory-service-addr=memory://"],
      `--path-info-service-addr=${address}`,
    ]);
    expect(await shell('diff -r "$1" "$2"', tree, join(mounted.folder, name))).toBe("");
    expect(await shell('ls "$1" 2>&1 || true', mounted.folder)).toContain("not permitted");
  });

  it("reports what is damaged by digest and store, and reads everything else", async () => {
    const store = embeddedIn(join(folder.path, "damaged"));
    const damaged = await importTree(store);
    const cut = 'truncate -s -1000 "$1"/damaged/blobs/packs/*.pack';
    await shell(cut, folder.path);
    await using mounted = await startMount(store);
    const script = 'cd "$1"; for f in *; do cat "$f" >/dev/null 2>&1 || echo "$f"; done';
    const failed = (await shell(script, join(mounted.folder, damaged))).trim().split("\n");
    expect(failed).toHaveLength(1);
    const told = expect.objectContaining({
      errno: 5,
      store: `pack://${folder.path}/damaged/blobs`,
      msg: expect.stringMatching(/b3:[A-Za-z0-9+/]{43}=/),
    });
    await vi.waitFor(() => expect(mounted.log).toContainEqual(told), 10_000);
  });

  it("reads what an earlier mount has read from --cache-dir, and refuses a folder of others", async () => {
    const store = embeddedIn(join(folder.path, "cached"));
    const cached = await importTree(store);
    const args = [...store, `--cache-dir=${join(folder.path, "cache")}`, "--cache-dir-size=100"];
    const compare = (mounted: string) => shell('diff -r "$1" "$2"', tree, join(mounted, cached));
    {
      await using mounted = await startMount(args);
      expect(await compare(mounted.folder)).toBe("");
      mounted.process.kill("SIGTERM");
      expect(await mounted.exit).toBe(0); // what waits is written before
    }
    await shell('rm "$1"/cached/blobs/packs/*.pack', folder.path);
    await using mounted = await startMount(args);
    expect(await compare(mounted.folder)).toBe("");
    const others = ["mount", ...store, `--cache-dir=${tree}`, mounted.folder];
    const { status, stderr } = await tvixStore(others);
    expect([status, stderr]).toEqual([1, expect.stringContaining("expected an empty folder")]);
  });

  describeWithTools("a bucket", ["run-s3"], (launcher) => {
    it("is read lazily", async () => {
      await using server = await startServer(launcher);
      mkdirSync(join(server.data, "bucket"));
      const file = join(folder.path, "stores.toml");
      const objects = (prefix: string) => `
        type = "objectstore"
        object_store_url = "s3://bucket/${prefix}"
        object_store_options.endpoint = "http://127.0.0.1:${server.port}"
        object_store_options.region = "us-east-1"
        object_store_options.force_path_style = true
      `;
      writeFileSync(
        file,
        `
          [blobservices.default]
          ${objects("blobs")}
          [directoryservices.default]
          ${objects("directories")}
          [pathinfoservices.default]
          type = "sqlite"
          path = "${folder.path}/s3-path-infos.sqlite"
        `,
      );
      const env = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "testtest" };
      const store = [`--store-composition=${file}`];
      const { stdout, stderr } = await tvixStore(["import", tree, ...store], { env });
      expect(stderr).toBe("");
      await using mounted = await startMount(store, { env });
      const at = join(mounted.folder, stdout.trim().replace("/nix/store/", ""));
      expect(await shell('diff -r "$1" "$2"', tree, at)).toBe("");
    });
  });

  describeWithTools("extended attributes", ["getfattr"], (getfattr) => {
    it("show the digests that other tools know", async () => {
      const args = [...throughDaemon(`grpc+unix://${socket}`), "--show-xattr"];
      await using mounted = await startMount(args);
      const script = '"$1" -d -m - "$2" "$2/file-3" | grep -v "^#"';
      const found = (await shell(script, getfattr, join(mounted.folder, name))).trim().split("\n");
      expect(found.map((line) => line.split("=")[0]).filter(Boolean)).toEqual([
        "user.snix.castore.directory.digest",
        "user.tvix.castore.directory.digest",
        "user.snix.castore.blob.digest",
        "user.tvix.castore.blob.digest",
      ]);
      expect(new Set(found.filter(Boolean).map((line) => line.slice(line.indexOf("=")))).size).toBe(
        2,
      );
    });
  });
});
