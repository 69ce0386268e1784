import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { embeddedIn, MAIN, startDaemon, temporaryFolder, tvixStore } from "./harness.ts";

/** A user that the user database does not know. */
const uid = 54_321;

/** Whether such a user can be had, and reads the sources. */
const canRun = process.getuid?.() === 0 && canRead();

function canRead(): boolean {
  const script = `require("node:fs").accessSync(${JSON.stringify(MAIN)})`;
  return spawnSync(process.execPath, ["-e", script], { uid }).status === 0;
}

const nowhere = { HOME: undefined, XDG_CACHE_HOME: undefined, XDG_STATE_HOME: undefined };
const asNobody = { uid, env: { ...nowhere, STATE_DIRECTORY: undefined } };

const missing = canRun ? "" : " (missing: root, and sources that everybody may read)";

describe.skipIf(!canRun)(`without HOME and an entry in the user database${missing}`, () => {
  let folder: ReturnType<typeof temporaryFolder>;
  let listen: string;
  beforeEach(() => {
    folder = temporaryFolder();
    chmodSync(folder.path, 0o777);
    listen = `--listen-address=${join(folder.path, "sock")}`;
  });
  afterEach(() => folder[Symbol.dispose]());

  it.each([["--help"], ["--version"], ["daemon --help"], ["import --help"]])(
    "%s is answered",
    async (line) => {
      const outcome = await tvixStore(line.split(" "), asNobody);
      expect(outcome).toMatchObject({ status: 0, stderr: "" });
      expect(outcome.stdout).not.toBe("");
    },
  );

  it("import and daemon need nothing but addresses", async () => {
    const file = join(folder.path, "file");
    writeFileSync(file, "contents");
    const args = ["import", file, ...embeddedIn(folder.path)];
    expect(await tvixStore(args, asNobody)).toMatchObject({ status: 0, stderr: "" });
    await using daemon = await startDaemon([listen, ...embeddedIn(folder.path)], asNobody);
    expect(daemon.addresses).toHaveLength(1);
  });

  it("a daemon says what it lacks for its stores, unless there is a state folder", async () => {
    const outcome = await tvixStore(["daemon", listen], asNobody);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(/^tvix-store: .*HOME.*--blob-service-addr\n$/);
    const STATE_DIRECTORY = join(folder.path, "state");
    const env = { ...asNobody.env, STATE_DIRECTORY };
    await using _daemon = await startDaemon([listen], { uid, env });
    expect(existsSync(join(STATE_DIRECTORY, "blobs"))).toBe(true);
  });
});
