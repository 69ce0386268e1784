import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MAIN, temporaryFolder, throughDaemon } from "./harness.ts";

/** The store path by Nix 2.8 for a file of this name with the line `x`. */
const STORE_PATH = "/nix/store/ayzgk29gjpwbgrh3p9qdy7rgbxirqg62-.gitignore\n";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
  shell(`mkdir "$bytes"; printf 'x\\n' > "$bytes/.gitignore"`);
});
afterEach(() => folder[Symbol.dispose]());

/** Runs a script in which `$bytes` is a name that is not UTF-8, and `store` is `tvix-store` over memory. */
function shell(script: string) {
  const prelude = `bytes=$(printf 'a\\377\\342\\202b'); store() { "$0" "$MAIN" "$@" $OPTIONS; };`;
  const { status, stdout, stderr } = spawnSync("bash", ["-c", prelude + script, process.execPath], {
    cwd: folder.path,
    env: {
      ...process.env,
      MAIN,
      OPTIONS: throughDaemon("memory://").join(" "),
      STATE_DIRECTORY: join(folder.path, "state"),
    },
    encoding: "utf8",
    timeout: 50_000, // a daemon that takes such an address would serve for ever
  });
  return { status, stdout, stderr };
}

describe("names that are not UTF-8", () => {
  it.each([
    ["in a path", 'store import "$bytes/.gitignore"'],
    ["in an absolute path", 'store import "$PWD/$bytes//../$bytes/.gitignore"'],
    ["in the path of the working folder", 'cd "$bytes"; store import .gitignore'],
    ["above the working folder", 'mkdir "$bytes/sub"; cd "$bytes/sub"; store import ../.gitignore'],
  ])("%s lead to the file", (_, script) => {
    expect(shell(script)).toMatchObject({ status: 0, stdout: STORE_PATH });
  });

  it("lead to an archive and a composition", () => {
    const tree = join(folder.path, "tree");
    execFileSync("mkdir", [tree]);
    writeFileSync(join(tree, "file"), "contents");
    const { stdout } = shell("store import tree");
    shell('tar -cf "$bytes/tree.tar" -C tree .');
    const done = { status: 0, stdout, stderr: "" };
    expect(shell('store import --archive "$bytes/tree.tar"')).toEqual(done);
    expect(shell('cd "$bytes"; store import --archive tree.tar')).toEqual(done);
    const toml = ["blobservices", "directoryservices", "pathinfoservices"]
      .map((kind) => `[${kind}.default]\ntype = "memory"\n`)
      .join("");
    writeFileSync(join(folder.path, "toml"), toml);
    shell('mv toml "$bytes/"');
    const script = 'OPTIONS=""; store import tree --store-composition "$bytes/toml"';
    expect(shell(script)).toEqual(done);
  });

  it.each([
    ["as the name of what is imported", 'store import "$bytes"', "name of a store path"],
    [
      "in an address",
      'OPTIONS=""; store import . --blob-service-addr "pack:///$bytes"',
      "percent-encode",
    ],
    ["in the path of a socket", 'exec "$0" "$MAIN" daemon -l "./$bytes"', "not UTF-8"],
    ["of a file that is not there", 'store import "$bytes/none"', "no such file"],
  ])("are refused %s, with one line", (_, script, reason) => {
    const outcome = shell(script);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(/^tvix-store: .*\n$/);
    expect(outcome.stderr).toContain(reason);
  });
});
