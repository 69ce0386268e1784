import { execFileSync } from "node:child_process";
import {
  createReadStream,
  existsSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  countPathInfos,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

let folder: ReturnType<typeof temporaryFolder>;
let store: string;
beforeEach(() => {
  folder = temporaryFolder();
  store = join(folder.path, "store");
});
afterEach(() => folder[Symbol.dispose]());

describeWithTools("tvix-store import --archive", ["tar", "xz"], (tar) => {
  let source: string;
  beforeEach(() => {
    source = join(folder.path, "package-1.0");
    mkdirSync(join(source, "sub"), { recursive: true });
    writeFileSync(join(source, "sub/file"), "contents");
    writeFileSync(join(source, "large"), seededBytes("large", 2_000_000));
  });

  const archive = (name: string, ...options: string[]): string => {
    const at = join(folder.path, name);
    execFileSync(tar, ["-C", source, ...options, "-cf", at, "."]);
    return at;
  };

  it("prints the store path that an import of the folder has", async () => {
    const expected = await tvixStore(["import", source, ...embeddedIn(store)]);
    expect(expected.stdout).toMatch(/-package-1\.0\n$/);
    const archives = [
      archive("package-1.0.tar"),
      archive("package-1.0.tar.xz", "-J"),
      archive("package-1.0.tgz", "-z"),
    ];
    for (const at of archives) {
      const args = ["import", "--archive", at, ...embeddedIn(`${store}-of-archives`)];
      expect(await tvixStore(args)).toEqual(expected);
    }
    const args = ["import", "--json", "--archive", archives[0]!, ...embeddedIn(`${store}-again`)];
    for (const bytesNew of [2_000_008, 0]) {
      const report = JSON.parse((await tvixStore(args)).stdout);
      expect(report).toMatchObject({ bytesNew, bytesDeduplicated: report.bytesRead - bytesNew });
    }
  });

  it("drops the first names of its paths as tar does, and leaves out what is excluded", async () => {
    linkSync(join(source, "sub/file"), join(source, "sub/link"));
    writeFileSync(join(source, "sub/other"), "contents");
    writeFileSync(join(source, "above"), "dropped");
    const at = join(folder.path, "archive.tar");
    execFileSync(tar, ["-C", folder.path, "-cf", at, "package-1.0"]);
    const unpacked = join(folder.path, "unpacked");
    mkdirSync(unpacked);
    execFileSync(tar, ["-C", unpacked, "--strip-components=2", "-xf", at]);
    mkdirSync(join(unpacked, "tmp"));
    const archive = ["--archive", at, "--strip-components=2", "--name=unpacked"];
    const [expected, found, excluding] = await Promise.all([
      tvixStore(["import", unpacked, "--exclude=tmp", ...embeddedIn(store)]),
      tvixStore(["import", ...archive, ...embeddedIn(`${store}-1`)]),
      tvixStore(["import", ...archive, "--exclude=other", ...embeddedIn(`${store}-2`)]),
    ]);
    expect(found).toMatchObject({ status: 0, stderr: "" });
    expect(found).toEqual(expected);
    rmSync(join(unpacked, "other"));
    const without = ["import", unpacked, "--exclude=tmp", ...embeddedIn(store)];
    expect(excluding).toEqual(await tvixStore(without));
  });

  it("does so through a daemon", async () => {
    const address = `${folder.path}/sock`;
    const at = archive("package-1.0.tar.gz", "-z");
    const listen = `--listen-address=${address}`;
    await using _daemon = await startDaemon([listen, ...embeddedIn(store)]);
    const services = throughDaemon(`grpc+unix://${address}`);
    const found = await tvixStore(["import", "--archive", at, ...services]);
    expect(found).toMatchObject({ status: 0, stderr: "" });
    expect(found).toEqual(await tvixStore(["import", source, ...services]));
    expect(await countPathInfos(store)).toBe(1);
  });

  it("takes it from stdin, under the name that it is given", async () => {
    const stdin = createReadStream(archive("archive", "-J"));
    const args = ["import", "--archive", "-", "--name", "named", ...embeddedIn(store)];
    const outcome = await tvixStore(args, { stdin });
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    renameSync(source, join(folder.path, "named"));
    const named = ["import", join(folder.path, "named"), ...embeddedIn(store)];
    expect(outcome).toEqual(await tvixStore(named));
  });

  it("registers to which store paths the contents refer, when asked to", async () => {
    const args = (...more: string[]) => ["import", ...more, ...embeddedIn(store)];
    const dependency = await tvixStore(args(join(source, "large")));
    writeFileSync(join(source, "sub/file"), `see ${dependency.stdout.trim()}`);
    const expected = await tvixStore(args("--references=auto", source));
    const at = archive("package-1.0.tar");
    expect(await tvixStore(args("--references=auto", "--archive", at))).toEqual(expected);
    expect((await tvixStore(args("--archive", at))).stdout).not.toBe(expected.stdout);
  });

  it("refuses what breaks off, and leaves no PathInfo", async () => {
    const at = archive("broken.tar.gz", "-z");
    truncateSync(at, 1_500_000);
    const outcome = await tvixStore(["import", "--archive", at, ...embeddedIn(store)]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(
      /^tvix-store: Cannot decompress ".*broken.tar.gz" \(gzip\): it breaks off.*\n$/,
    );
    expect(await countPathInfos(store)).toBe(0);
  });
});

describe("tvix-store import --archive", () => {
  it("ends when it is interrupted while it waits for stdin", async () => {
    const stop = new AbortController();
    const silent = new Readable({ read() {} });
    silent.push(Buffer.alloc(100));
    const args = ["import", "--archive", "-", "--name", "name", ...embeddedIn(store)];
    const ended = tvixStore(args, { stdin: silent, interrupt: stop.signal });
    await vi.waitUntil(() => existsSync(join(store, "path-infos.sqlite")), { timeout: 30_000 });
    stop.abort();
    expect(await ended).toEqual({
      status: 130,
      stdout: "",
      stderr: "tvix-store: Ended by SIGINT\n",
    });
  });
});
