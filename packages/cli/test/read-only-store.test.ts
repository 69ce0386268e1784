import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, tvixStore } from "./harness.ts";
import { missingOther, OTHER_UID } from "./other-user.ts";
import { canMount, mountSmallDisk, unmount } from "./small-disk.ts";

const missing = canMount ? missingOther : " (missing: permission to mount a file system)";

describe.skipIf(missing !== "")(`a store that can only be read${missing}`, () => {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder.path, name);
  /** A store on a read-only file system, and one in a folder that other users can only read. */
  const frozen = at("disk/store");
  const foreign = at("foreign");
  const other = { uid: OTHER_UID, env: { HOME: folder.path } };
  let stored: string;

  beforeAll(async () => {
    chmodSync(folder.path, 0o755);
    writeFileSync(at("file"), "contents");
    writeFileSync(at("more"), "more contents");
    mkdirSync(at("disk"));
    mountSmallDisk(at("disk"), 8);
    const args = ["import", "--store-mode=0755", at("file"), ...embeddedIn(foreign)];
    stored = (await tvixStore(args)).stdout.trim();
    cpSync(foreign, frozen, { recursive: true });
    execFileSync("mount", ["-o", "remount,ro", at("disk")]);
  });
  afterAll(() => {
    unmount(at("disk"));
    folder[Symbol.dispose]();
  });

  it("is refused by commands that write, before anything is done, and used by others", async () => {
    const advice = "; make it writable for this user, or name another store with";
    const frozenFolder = `"${frozen}/blobs" is on a read-only file system${advice}`;
    const nothing = "/nonexistent"; // which is not looked at
    const outcomes = await Promise.all([
      tvixStore(["import", nothing, ...embeddedIn(frozen)]),
      tvixStore(["copy", "--from", foreign, "--to", frozen, "0".repeat(32)]),
      tvixStore(["import", nothing, ...embeddedIn(foreign)], other),
      tvixStore(["import", nothing, `--blob-service-addr=objectstore+file://${at("disk")}/new`]),
      tvixStore(["import", nothing, ...embeddedIn(at("disk/new"))]),
      tvixStore(["daemon", "-l", at("socket"), ...embeddedIn(at("disk/new"))]),
    ]);
    const expected = [
      `pack://${frozen}/blobs: Cannot write to it: ${frozenFolder} --blob-service-addr`,
      `pack://${frozen}/blobs: Cannot write to it: ${frozenFolder} --to\n`,
      `pack://${foreign}/blobs: Cannot write to it: no permission to write to "${foreign}/blobs"${advice} --blob-service-addr`,
      `"${at("disk")}" is on a read-only file system${advice} --blob-service-addr`,
      `Cannot make folder "${at("disk/new/blobs")}": expected a file system that can be written${advice}`,
      `Cannot make folder "${at("disk/new/blobs")}": expected a file system that can be written${advice}`,
    ];
    for (const [i, outcome] of outcomes.entries()) {
      expect(outcome).toMatchObject({ status: 1, stdout: "" });
      expect(outcome.stderr).toMatch(/^tvix-store: .*\n$/);
      expect(outcome.stderr).toContain(expected[i]);
    }
    const read = await tvixStore(["path-info", stored, ...embeddedIn(foreign)], other);
    expect(read).toEqual({ status: 0, stdout: `${stored}\n`, stderr: "" });
  });

  it("is served by a daemon that warns of it", async () => {
    const objects = `--cache-object-addr=file://${at("disk/objects")}`;
    await using daemon = await startDaemon(["-l", at("socket"), objects, ...embeddedIn(frozen)]);
    const warnings = daemon.log.filter(({ level }) => level === 40);
    const [blobs, ...others] = warnings.map(({ store, msg }) => `${store}: ${msg}`);
    expect(others.pop()).toBe(
      `file://${at("disk/objects")}: Cannot write what belongs to the binary cache: "${at("disk")}" is on a read-only file system; make it writable for this user, or name another with --cache-object-addr`,
    );
    expect(blobs).toBe(
      `pack://${frozen}/blobs: Cannot write to it: "${frozen}/blobs" is on a read-only file system`,
    );
    expect(others).toHaveLength(2);
  });
});
