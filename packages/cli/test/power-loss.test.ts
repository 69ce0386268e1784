import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { StorePath } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  embeddedIn,
  readEverything,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";
import { canMount } from "./small-disk.ts";

const title = `a power loss${canMount ? "" : " (missing: permission to mount a disk)"}`;

describe.skipIf(!canMount)(title, () => {
  describeWithTools("of a disk with XFS", ["mkfs.xfs", "xfs_io"], (mkfs, xfsIo) => {
    let folder: ReturnType<typeof temporaryFolder>;
    let disk: string;
    const imageOf = (boot: number) => join(folder.path, `image-${boot}`);
    const mount = (boot: number) =>
      execFileSync("mount", ["-o", "loop,nouuid", imageOf(boot), disk]);
    const unmount = () => execFileSync("umount", [disk]);
    /**
     * Mounts what is on the disk, from a copy: a mount namespace of another test may keep the file system mounted that has
     * lost its power.
     */
    const reboot = (boot: number) => {
      unmount();
      execFileSync("cp", ["--sparse=always", imageOf(boot), imageOf(boot + 1)]);
      rmSync(imageOf(boot));
      mount(boot + 1);
    };
    /** From here on nothing reaches the disk that was not made durable before. */
    const losePower = () => execFileSync(xfsIo, ["-x", "-c", "shutdown", disk]);

    beforeEach(() => {
      folder = temporaryFolder();
      disk = join(folder.path, "disk");
      mkdirSync(disk);
      const image = imageOf(0);
      writeFileSync(image, "");
      truncateSync(image, 400 * 1024 * 1024);
      execFileSync(mkfs, ["-q", image]);
      mount(0);
    });
    afterEach(() => {
      unmount();
      folder[Symbol.dispose]();
    });

    function writeTree(name: string): string {
      const tree = join(folder.path, name);
      for (let i = 0; i < 20; i++) {
        mkdirSync(join(tree, `${i}`), { recursive: true });
        for (let j = 0; j < 20; j++) {
          writeFileSync(join(tree, `${i}/${j}`), seededBytes(`${name} ${i} ${j}`, j * 2000));
        }
      }
      writeFileSync(join(tree, "large"), seededBytes(name, 3_000_000));
      return tree;
    }

    it("takes nothing of an import that was reported, and leaves nothing in pieces", async () => {
      const services = embeddedIn(join(disk, "store"));
      const reported: string[] = [];
      for (let round = 0; round < 4; round++) {
        const importing = tvixStore(["import", writeTree(`tree-${round}`), ...services]);
        // In every other round the power goes before the import has finished.
        if (round % 2 === 1) await sleep(500 + round * 100);
        else await importing;
        losePower();
        const { status, stdout } = await importing;
        if (status === 0) reported.push(StorePath.parseAbsolute(stdout.trim()).toAbsolutePath());
        reboot(round);
        expect(await readEverything(services)).toEqual(expect.arrayContaining(reported));
      }
      expect(reported.length).toBeGreaterThanOrEqual(2);
    });

    it("takes nothing that a daemon has taken, whose commits the index has not on disk", async () => {
      const services = embeddedIn(join(disk, "store"));
      const reported: string[] = [];
      for (let round = 0; round < 3; round++) {
        await using daemon = await startDaemon(["-l", "127.0.0.1:0", ...services]);
        for (let i = 0; i < 4; i++) {
          const file = join(folder.path, `small-${round}-${i}`);
          writeFileSync(file, seededBytes(file, 3000));
          const through = throughDaemon(`grpc+http://${daemon.addresses[0]}`);
          const { stdout } = await tvixStore(["import", file, ...through]);
          reported.push(StorePath.parseAbsolute(stdout.trim()).toAbsolutePath());
        }
        losePower();
        await daemon[Symbol.asyncDispose]();
        reboot(round);
        expect(await readEverything(services)).toEqual(expect.arrayContaining(reported));
      }
    });
  });
});
