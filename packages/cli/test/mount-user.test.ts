import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools } from "@tvix/conformance";
import { afterAll, beforeAll, expect, it } from "vitest";
import { embeddedIn, MAIN, temporaryFolder, tvixStore } from "./harness.ts";
import { describeWithFuse, shell } from "./mounted.ts";

/**
 * Prepares a mount namespace of its own, in which the user nobody may open the FUSE device, and defines how to run
 * `tvix-store mount` as that user (`start`, which sets PID) on the folder M.
 */
const PREPARE = `
  M=$1/mount; STORE=("\${@:3}"); MAIN=$2
  mount --bind "$1/fuse" /dev/fuse
  as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
  start() {
    exec 3< <(exec setpriv --reuid=65534 --regid=65534 --clear-groups "${process.execPath}" "$MAIN" mount "$@" "\${STORE[@]}" "$M" 2>&1)
    PID=$!
    read -r LINE <&3; [[ $LINE == *mounted* ]] || { echo "$LINE"; return 1; }
  }
  ended() { cat <&3 >/dev/null; mountpoint -q "$M" || echo gone; }
`;

describeWithFuse("a mount by a user that is not root", () => {
  describeWithTools("through fusermount3", ["fusermount3", "setpriv", "unshare"], () => {
    const folder = temporaryFolder();
    const store = embeddedIn(join(folder.path, "store"));
    const run = (script: string) =>
      shell(
        'exec unshare -m --fork --kill-child bash -euc "$@"',
        ...[PREPARE + script, "bash"],
        ...[folder.path, MAIN, ...store],
      );
    let name: string;

    beforeAll(async () => {
      const tree = join(folder.path, "tree");
      mkdirSync(tree);
      writeFileSync(join(tree, "file"), "contents");
      mkdirSync(join(folder.path, "mount"));
      const { stdout } = await tvixStore(["import", tree, ...store]);
      name = stdout.trim().replace("/nix/store/", "");
      const script = 'mknod "$1/fuse" c 10 229; chmod 755 "$1"; chown -R 65534 "$1"';
      await shell(script, folder.path);
    });
    afterAll(() => folder[Symbol.dispose]());

    it("shows files to that user alone, and is unmounted by SIGTERM or by fusermount3", async () => {
      const script = `
        start; as_nobody cat "$M/${name}/file"; ls "$M" 2>/dev/null || echo " refused"
        kill -TERM $PID; ended
        start; as_nobody fusermount3 -u "$M"; ended
      `;
      expect(await run(script)).toBe("contents refused\ngone\ngone\n");
    });

    it("shows files to others where /etc/fuse.conf allows it, and then disappears also when it is killed", async () => {
      const script = `
        echo > "$1/none"; mount --bind "$1/none" /etc/fuse.conf
        start "--allow-other" || true
        echo user_allow_other > "$1/allow"; mount --bind "$1/allow" /etc/fuse.conf
        start "--allow-other"; cat "$M/${name}/file"; kill -KILL $PID
        for i in {1..100}; do mountpoint -q "$M" || break; sleep 0.05; done; mountpoint -q "$M" || echo " gone"
      `;
      const [refused, ...rest] = (await run(script)).split("\n");
      expect(refused).toContain("option allow_other only allowed if 'user_allow_other' is set");
      expect(rest).toEqual(["contents gone", ""]);
    });

    it("says what to install where fusermount3 is missing", async () => {
      const script = `mkdir "$1/empty"
        as_nobody env PATH="$1/empty" "${process.execPath}" "$MAIN" mount "\${STORE[@]}" "$M" 2>&1 || true`;
      expect(await run(script)).toContain('found none; install the package "fuse3"');
    });
  });
});
