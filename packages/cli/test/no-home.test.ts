import { chmodSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, tvixStore } from "./harness.ts";
import { canBeOther, missingOther, OTHER_UID } from "./other-user.ts";

const nowhere = { HOME: undefined, XDG_CACHE_HOME: undefined, XDG_STATE_HOME: undefined };
const asNobody = { uid: OTHER_UID, env: { ...nowhere, STATE_DIRECTORY: undefined } };

describe.skipIf(!canBeOther)(
  `without HOME and an entry in the user database${missingOther}`,
  () => {
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
      await using _daemon = await startDaemon([listen], { uid: OTHER_UID, env });
      expect(existsSync(join(STATE_DIRECTORY, "blobs"))).toBe(true);
    });
  },
);
