import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  embeddedIn,
  readEverything,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";
import { canMount, fillDisk, mountSmallDisk, unmount } from "./small-disk.ts";

/** The error of every import on such a disk. */
const FULL = /^tvix-store: .*(no space left on device|SQLITE_FULL|full disk).*\n$/;

let folder: ReturnType<typeof temporaryFolder>;
let disk: string;
beforeEach(() => {
  folder = temporaryFolder();
  disk = join(folder.path, "disk");
  mkdirSync(disk);
});
afterEach(() => folder[Symbol.dispose]());

function mountImage(mkfs: string, megabytes: number): void {
  const image = join(folder.path, "image");
  writeFileSync(image, "");
  truncateSync(image, megabytes * 2 ** 20);
  execFileSync(mkfs, ["-q", image]);
  execFileSync("mount", ["-o", "loop", image, disk]);
}

function writeTree(name: string): string {
  const tree = join(folder.path, name);
  mkdirSync(join(tree, "below"), { recursive: true });
  writeFileSync(join(tree, "below/file"), seededBytes(name, 300_000));
  return tree;
}

function isReadAndToldApartFromWritten(mount: () => void): void {
  beforeEach(() => mount());
  afterEach(() => unmount(disk));

  it("is read by commands and daemons that start on it, and told by those that write", async () => {
    const services = embeddedIn(join(disk, "store"));
    const address = `${folder.path}/sock`;
    const daemon = throughDaemon(`grpc+unix://${address}`);
    const { stdout } = await tvixStore(["import", writeTree("before"), ...services]);
    const before = [stdout.trim()];
    const more = writeTree("more");
    let ballast: string | undefined;
    for (let round = 0; round < 2; round++) {
      ballast = fillDisk(disk);
      expect(await readEverything(services)).toEqual(before);
      expect(await tvixStore(["import", more, ...services])).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(FULL),
      });
      await using started = await startDaemon([`--listen-address=${address}`, ...services]);
      expect(await readEverything(daemon)).toEqual(before);
      expect(await tvixStore(["import", more, ...daemon])).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(FULL),
      });
      started.process.kill(round === 0 ? "SIGTERM" : "SIGKILL");
      await started.exit;
    }
    expect(await readEverything(services)).toEqual(before);
    rmSync(ballast!);
    expect(await tvixStore(["import", more, ...services])).toMatchObject({ status: 0 });
    expect(await readEverything(services)).toHaveLength(2);
  });
}

const title = `a full disk${canMount ? "" : " (missing: permission to mount one)"}`;

describe.skipIf(!canMount)(title, () => {
  describe("in memory", () => isReadAndToldApartFromWritten(() => mountSmallDisk(disk, 8)));

  describeWithTools("with ext4", ["mkfs.ext4"], (mkfs) =>
    isReadAndToldApartFromWritten(() => mountImage(mkfs, 40)),
  );

  describeWithTools("with XFS", ["mkfs.xfs"], (mkfs) =>
    isReadAndToldApartFromWritten(() => mountImage(mkfs, 310)),
  );
});
