import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

/** Writes a configuration file; returns its path. */
function configFile(text: string): string {
  const path = join(folder.path, "config.toml");
  writeFileSync(path, text);
  return path;
}

const STORES = ["blob", "directory", "path-info"]
  .map((name) => `${name}-service-addr = "memory://"\n`)
  .join("");

describe("--config", () => {
  it.each<[string, string, string]>([
    [
      "TOML with a mistake",
      'log-level = "warn"\n[daemon',
      "line 2, column 2: expected TOML, found none",
    ],
    [
      "an unknown option",
      'log-level = "warn"\nblob-servce-addr = "memory://"',
      'line 2, column 1: unknown option "blob-servce-addr": did you mean "blob-service-addr"?',
    ],
    [
      "an option of another command",
      "[import]\n  listen-address = []",
      'line 2, column 3: unknown option "listen-address" of "import"',
    ],
    [
      "an unknown command",
      "[deamon]\nquiet = true",
      'line 1, column 1: unknown command "deamon": did you mean "daemon"?',
    ],
    [
      "an unknown command of a command",
      "[token.creat]\nquiet = true",
      'line 1, column 1: unknown command "creat": did you mean "create"? (expected create, list, revoke)',
    ],
    [
      "a value that is none of the choices",
      '[import]\nlog-level = "warning"',
      'line 2, column 1: key "log-level": found "warning", did you mean "warn"?',
    ],
    [
      "a value that cannot be parsed",
      '[daemon]\nmax-uploads = "many"',
      'line 2, column 1: key "max-uploads": expected a number from 1, found "many"',
    ],
    [
      "a value of another type",
      "quiet = 1",
      'line 1, column 1: key "quiet": expected true or false, found 1',
    ],
    [
      "several values for one",
      'log-level = ["warn", "info"]',
      'key "log-level": expected a string, found ["warn","info"]',
    ],
    ["a value for a command", "daemon = true", "expected a table [daemon], found a value"],
  ])("refuses %s", async (_, text, reason) => {
    const path = configFile(text);
    const { status, stdout, stderr } = await tvixStore(["cat", "--config", path, "x"]);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toContain(`tvix-store: Cannot use config file "${path}": `);
    expect(stderr).toContain(reason);
  });

  it("refuses a file that does not exist", async () => {
    const outcome = await tvixStore(["import", `--config=${folder.path}/none`, folder.path]);
    const reason = `Cannot read config file "${folder.path}/none": no such file or directory`;
    expect(outcome).toEqual({ status: 1, stdout: "", stderr: `tvix-store: ${reason}\n` });
  });

  it("gives a daemon its options, those in its own table first", async () => {
    const path = configFile(`${STORES}log-level = "warn"\n[daemon]\nlog-level = "info"
      listen-address = ["127.0.0.1:0", "${folder.path}/sock"]`);
    await using daemon = await startDaemon(["--config", path]);
    expect(daemon.addresses).toHaveLength(2);
  });

  it("takes stores from an argument, also where the file describes them in another way", async () => {
    const file = join(folder.path, "file");
    writeFileSync(file, "contents");
    const path = configFile(`store-composition = "/nowhere"\n[token.list]\nauth-file = "x"`);
    const args = ["import", "--config", path, file];
    const used = await tvixStore(args);
    expect(used.stderr).toContain('store composition "/nowhere"');
    expect(await tvixStore([...args, ...throughDaemon("memory://")])).toMatchObject({ status: 0 });
    const tokens = await tvixStore(["token", "list", "--config", path]);
    expect(tokens.stderr).toContain('auth file "x"');
  });

  it("does not keep the help from being shown", async () => {
    const env = { TVIX_STORE_CONFIG: "/nowhere" };
    expect(await tvixStore(["import", "--help"], { env })).toMatchObject({ status: 0 });
  });
});

describe("what is written on stderr", () => {
  const missing = ["cat", "HASH", ...throughDaemon("memory://")];
  it("is JSON with --log-format=json, errors included", async () => {
    const { status, stderr } = await tvixStore([...missing, "--log-format", "json"]);
    expect(status).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ level: 50, code: "invalid_argument" });
  });

  it("is nothing with --log-level=silent, and nothing but errors with --quiet", async () => {
    const silent = await tvixStore(missing, { env: { LOG_LEVEL: "silent" } });
    expect(silent).toEqual({ status: 1, stdout: "", stderr: "" });
    const quiet = await tvixStore([...missing, "--quiet"]);
    expect(quiet.stderr).toMatch(/^tvix-store: .*HASH.*\n$/);
  });
});
