import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { seededBytes } from "@tvix/conformance";
import { SigningKey } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Daemon,
  embeddedIn,
  readEverything,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

describe("tvix-store copy", () => {
  const folder = temporaryFolder();
  const key = SigningKey.generate("test-1");
  let daemon: Daemon;
  let grpc: string;
  /** A program, which refers to a library, which refers to nothing. */
  let library: string;
  let program: string;
  let count = 0;

  /** The folder of a new store. */
  const newStore = () => join(folder.path, `store ${count++}`);
  const copy = (...args: string[]) => tvixStore(["copy", ...args]);

  beforeAll(async () => {
    writeFileSync(join(folder.path, "key"), key.toSecretText());
    daemon = await startDaemon([
      "--listen-address=127.0.0.1:0",
      `--signing-key-file=${folder.path}/key`,
      ...embeddedIn(join(folder.path, "of daemon")),
    ]);
    grpc = `grpc+http://${daemon.addresses[0]}`;
    mkdirSync(join(folder.path, "library"));
    for (const [name, bytes] of [
      ["empty", 0],
      ["small", 1000],
      ["large", 3_000_000],
    ] as const) {
      writeFileSync(join(folder.path, "library", name), seededBytes(name, bytes));
    }
    const services = throughDaemon(grpc);
    const first = await tvixStore(["import", join(folder.path, "library"), ...services]);
    library = first.stdout.trim();
    writeFileSync(join(folder.path, "program"), `load ${library}`);
    const args = ["import", "--references=auto", join(folder.path, "program"), ...services];
    program = (await tvixStore(args)).stdout.trim();
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it("copies a closure from a daemon to a folder and on to another daemon, references first, and once", async () => {
    const store = newStore();
    const args = ["--from", grpc, "--to", store, "--closure", program];
    const dry = await copy(...args, "--dry-run");
    const lines = dry.stdout.split("\n");
    expect(lines.map((line) => line.split("\t")[0])).toEqual([library, program, ""]);
    expect(lines[0]).toMatch(/\t3001\d{3}$/);
    expect(dry.stderr).toMatch(
      /^tvix-store: would copy 2 of 2 store paths, NARs of \d+ bytes; .*\n$/,
    );
    expect(await copy(...args)).toEqual({
      status: 0,
      stdout: `${library}\n${program}\n`,
      stderr: "",
    });
    expect(await copy(...args)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect((await readEverything(embeddedIn(store))).toSorted()).toEqual(
      [library, program].toSorted(),
    );

    const listen = join(folder.path, "other");
    const other = newStore();
    await using _other = await startDaemon([`--listen-address=${listen}`, ...embeddedIn(other)]);
    const onward = ["--from", store, "--to", `grpc+unix://${listen}`, "--json", library, program];
    const { stdout } = await copy(...onward);
    const [first, second] = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(first).toMatchObject({ storePath: library, bytesRead: 3_001_000, bytesNew: 3_001_000 });
    expect(second).toMatchObject({ storePath: program, references: [library] });
    expect(await readEverything(embeddedIn(other))).toHaveLength(2);
  });

  it("refuses a store path whose references would be missing", async () => {
    const outcome = await copy("--from", grpc, "--to", newStore(), program);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toMatch(
      /^tvix-store: Cannot copy .*-program": it refers to .*-library", .*pass --closure to copy both\n$/,
    );
  });

  it("copies from a binary cache what a trusted key has signed", async () => {
    // Content-addressed paths need no signature; a narinfo with another name is none.
    const cache = `nix+http://${daemon.addresses[0]}`;
    const trusting = (key: SigningKey) =>
      `${cache}?trusted-public-keys=${encodeURIComponent(`${key.verifyingKey}`)}`;
    const to = ["--to", newStore(), "--closure", program.slice("/nix/store/".length, 32 + 11)];
    const outcome = await copy("--from", trusting(key), ...to);
    expect(outcome).toEqual({ status: 0, stdout: `${library}\n${program}\n`, stderr: "" });
    const absent = await copy("--from", cache, "--to", newStore(), "0".repeat(32));
    expect(absent.stderr).toMatch(
      /^tvix-store: Cannot copy: expected "0{32}" in http:.*found no such store path\n$/,
    );
  });

  it("takes stores from a TOML file", async () => {
    const to = newStore();
    const file = join(folder.path, "stores.toml");
    const tables = [
      ["blobservices", "pack", "blobs"],
      ["directoryservices", "sqlite", "directories.sqlite"],
      ["pathinfoservices", "sqlite", "path-infos.sqlite"],
    ].map(([kind, type, name]) => `[${kind}.default]\ntype = "${type}"\npath = "${to}/${name}"\n`);
    writeFileSync(file, tables.join("\n"));
    const outcome = await copy("--from", grpc, "--to", file, library);
    expect(outcome).toEqual({ status: 0, stdout: `${library}\n`, stderr: "" });
    expect(await readEverything(embeddedIn(to))).toEqual([library]);
  });

  const LIBRARY = `${"0".repeat(32)}-library`;
  it.each([
    [["--to=./x", "--from=pack:///x", LIBRARY], "it has blobs, but no directories and path infos"],
    [["--to=objectstore+s3://bucket", LIBRARY], "but no path infos; describe all three"],
    [["--to=nix+https://host", LIBRARY], "can be copied from only"],
    [["--to=local", LIBRARY], "can be copied from only"],
    [["--from=local?key=1", "--to=./x", LIBRARY], 'found "key"'],
    [["--from=local?root=/none", "--to=./x", LIBRARY], "there is no such file"],
    [["--from=gopher://host", "--to=./x", LIBRARY], 'found "gopher:"'],
    [["--from=./none", "--to=./x", `b3:${"0".repeat(64)}`], "found a digest"],
    [["--from=./none", "--to=./x", `${LIBRARY}/file`], "found a path below one"],
    [["--closure", "graph"], "expected --from or --to with store paths"],
    [[], "expected a path, found none"],
    [["--zstd-level=23", "graph"], 'expected 1 to 22, found "23"'],
    [["none.json"], 'Cannot read reference graph "none.json"'],
  ])("refuses %j", async (args, reason) => {
    const cwd = newStore();
    mkdirSync(cwd);
    const env = { NIX_ATTRS_JSON_FILE: undefined };
    const outcome = await tvixStore(["copy", ...args], { cwd, env });
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toContain(reason);
    expect(outcome.stderr).toMatch(/^tvix-store: .*\n$/);
  });
});
