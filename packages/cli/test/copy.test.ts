import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describeWithTools, seededBytes, startServer } from "@tvix/conformance";
import { fingerprint, SigningKey, StorePath } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  compositionIn,
  type Daemon,
  embeddedIn,
  MAIN,
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
    expect(existsSync(store)).toBe(false);
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
    const absent = await copy("--no-progress", "--from", cache, "--to", newStore(), "0".repeat(32));
    expect(absent.stderr).toMatch(
      /^tvix-store: Cannot copy: expected "0{32}" in http:.*found no such store path\n$/,
    );
  });

  it("refuses from a binary cache what no trusted key has signed", async () => {
    // The same contents under a name that does not follow from them, as something that Nix has built.
    const storePath = StorePath.parse(`${"1".repeat(32)}-built`);
    await using services = await openServices(addressesOf(throughDaemon(grpc)));
    const { hashPart } = StorePath.parseAbsolute(library);
    const { ca: _, ...original } = (await services.pathInfoService.get(hashPart))!;
    const signature = key.sign(fingerprint({ ...original, storePath }));
    await services.pathInfoService.put({ ...original, storePath, signatures: [signature] });
    const cache = `nix+http://${daemon.addresses[0]}`;
    const trusting = ({ verifyingKey }: SigningKey) =>
      `${cache}?trusted-public-keys=${encodeURIComponent(`${verifyingKey}`)}`;
    const store = newStore();
    const [other, same] = await Promise.all([
      copy("--from", trusting(SigningKey.generate("other-1")), "--to", store, `${storePath}`),
      copy("--from", trusting(key), "--to", newStore(), `${storePath}`),
    ]);
    expect(other).toMatchObject({ status: 1, stdout: "" });
    expect(other.stderr).toMatch(/^tvix-store: .*1{32}.*other-1.*\n$/);
    expect(await readEverything(embeddedIn(store))).toEqual([]);
    expect(same).toMatchObject({ status: 0, stdout: `${storePath.toAbsolutePath()}\n` });
  });

  it("goes on where it was killed", async () => {
    const files = Array.from({ length: 12 }, (_, i) => join(folder.path, `part-${i}`));
    for (const file of files) writeFileSync(file, seededBytes(file, 400_000));
    const { stdout } = await tvixStore(["import", ...files, ...throughDaemon(grpc)]);
    const paths = stdout.trim().split("\n");
    const store = newStore();
    const args = ["copy", "--from", grpc, "--to", store, ...paths];
    const child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface(child.stdout);
    const [first] = await once(lines, "line");
    child.kill("SIGKILL");
    expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
    const rest = await tvixStore(args);
    expect(rest).toMatchObject({ status: 0, stderr: "" });
    expect(rest.stdout).not.toBe("");
    expect(rest.stdout).not.toContain(first);
    expect((await readEverything(embeddedIn(store))).toSorted()).toEqual(paths.toSorted());
  });

  describeWithTools("to a bucket", ["run-s3"], (launcher) => {
    it("stores contents there, and sends nothing twice", async () => {
      await using server = await startServer(launcher);
      mkdirSync(join(server.data, "bucket"));
      const file = join(folder.path, "bucket.toml");
      const bucket = `type = "objectstore"
        object_store_url = "s3://bucket/store"
        object_store_options = { endpoint = "http://127.0.0.1:${server.port}", region = "us-east-1", force_path_style = "true" }`;
      writeFileSync(
        file,
        `[blobservices.default]
        ${bucket}
        [directoryservices.default]
        ${bucket}
        [pathinfoservices.default]
        type = "sqlite"
        path = "${newStore()}/path-infos.sqlite"`,
      );
      const env = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "testtest" };
      const args = ["copy", "--from", grpc, "--to", file, "--closure", program];
      const first = await tvixStore(args, { env });
      expect(first).toEqual({ status: 0, stdout: `${library}\n${program}\n`, stderr: "" });
      const [again, read] = await Promise.all([
        tvixStore(args, { env }),
        tvixStore(["cat", program, "--store-composition", file], { env }),
      ]);
      expect(again).toEqual({ status: 0, stdout: "", stderr: "" });
      expect(read).toEqual({ status: 0, stdout: `load ${library}`, stderr: "" });
    });
  });

  it("takes stores from a TOML file", async () => {
    const to = newStore();
    const file = join(folder.path, "stores.toml");
    writeFileSync(file, compositionIn(to));
    const outcome = await copy("--from", grpc, "--to", file, library);
    expect(outcome).toEqual({ status: 0, stdout: `${library}\n`, stderr: "" });
    expect(await readEverything(embeddedIn(to))).toEqual([library]);
  });
});
