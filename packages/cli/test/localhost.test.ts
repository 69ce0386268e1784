import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describeWithTools } from "@tvix/conformance";
import { expect, it } from "vitest";
import { MAIN, temporaryFolder, throughDaemon } from "./harness.ts";

/** The store path by Nix 2.8 for a file of this name with the line `x`. */
const STORE_PATH = "/nix/store/ayzgk29gjpwbgrh3p9qdy7rgbxirqg62-.gitignore\n";

/**
 * Starts a daemon and imports through it, both with their default addresses, in a network of their own. Writes to
 * stderr
 * where the daemon listens.
 */
const SCRIPT = `
  set -e
  trap 'kill -9 $(jobs -p) 2>/dev/null || :' EXIT
  mount --bind "$HOSTS" /etc/hosts
  ip link set lo up
  eval "$SETUP"
  mkfifo log
  "$NODE" "$MAIN" daemon $MEMORY 2>log &
  grep -m1 '"listening"' log >&2
  "$NODE" "$MAIN" import .gitignore
  kill %1
  wait %1
`;

const canUnshare = await promisify(execFile)("unshare", ["--net", "--mount", "true"]).then(
  () => true,
  () => false,
);

describeWithTools(
  "a machine",
  canUnshare ? ["unshare", "ip", "bash"] : ["permission to unshare"],
  (unshare) => {
    it.each([
      ["of both families", "true", ["127.0.0.1:8000", "[::1]:8000"]],
      ["without /etc/hosts", ': > "$HOSTS"', ["127.0.0.1:8000", "[::1]:8000"]],
      ["without IPv6", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6", ["127.0.0.1:8000"]],
      ["without IPv4", "ip addr del 127.0.0.1/8 dev lo", ["[::1]:8000"]],
    ])(
      "%s runs a daemon and an import that need not be told where",
      async (_, setup, addresses) => {
        using folder = temporaryFolder();
        writeFileSync(join(folder.path, ".gitignore"), "x\n");
        const hosts = join(folder.path, "hosts");
        writeFileSync(hosts, "127.0.0.1 localhost\n::1 localhost\n");
        const env = { MAIN, NODE: process.execPath, HOSTS: hosts, SETUP: setup };
        const args = ["--net", "--mount", "bash", "-c", SCRIPT];
        const { stdout, stderr } = await promisify(execFile)(unshare, args, {
          cwd: folder.path,
          env: { ...process.env, ...env, MEMORY: throughDaemon("memory://").join(" ") },
        });
        expect(stdout).toBe(STORE_PATH);
        expect(JSON.parse(stderr).addresses).toEqual(addresses);
      },
    );
  },
);
