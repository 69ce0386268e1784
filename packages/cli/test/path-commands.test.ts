import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { seededBytes } from "@tvix/conformance";
import { fingerprint, parseSignature, SigningKey } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  compositionIn,
  embeddedIn,
  type Outcome,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

const ABSENT = "/nix/store/00000000000000000000000000000000-absent";

let folder: ReturnType<typeof temporaryFolder>;
let options: string[];
/** The store paths of a library, of what refers to it, and of a later version of the latter. */
let library: string;
let program: string;
let later: string;
beforeAll(async () => {
  folder = temporaryFolder();
  options = embeddedIn(join(folder.path, "store"));
  const at = (name: string) => join(folder.path, name);
  writeFileSync(at("library"), seededBytes("library", 1000));
  library = await importOne("library");
  mkdirSync(at("program/bin"), { recursive: true });
  mkdirSync(at("program/same"));
  writeFileSync(at("program/bin/run"), library);
  writeFileSync(at("program/same/data"), seededBytes("data", 600_000));
  writeFileSync(at("program/text"), "text");
  symlinkSync("text", at("program/link"));
  program = await importOne("program");
  renameSync(at("program"), at("later"));
  chmodSync(at("later/bin/run"), 0o755);
  writeFileSync(at("later/text"), "longer");
  rmSync(at("later/link"));
  mkdirSync(at("later/link"));
  writeFileSync(at("later/link/new"), "");
  later = await importOne("later");
});
afterAll(() => folder[Symbol.dispose]());

const run = (...args: string[]): Promise<Outcome> =>
  tvixStore([...args, ...options], { cwd: folder.path });

async function importOne(name: string): Promise<string> {
  const { stdout, stderr } = await run("import", "--references=auto", name);
  expect(stderr).toBe("");
  return stdout.trim();
}

/** The PathInfo of a store path. */
async function pathInfoOf(storePath: string) {
  await using services = await openServices(addressesOf(options));
  for await (const pathInfo of services.pathInfoService.list()) {
    if (pathInfo.storePath.toAbsolutePath() === storePath) return pathInfo;
  }
  throw new Error(`expected ${storePath}`);
}

describe("tvix-store path-info", () => {
  it("prints store paths, and sizes when asked to", async () => {
    const hash = library.slice("/nix/store/".length).slice(0, 32);
    const [plain, sizes] = await Promise.all([
      run("path-info", program, hash, program),
      run("path-info", "-rS", "--size", later),
    ]);
    expect(plain).toEqual({ status: 0, stderr: "", stdout: `${program}\n${library}\n` });
    const [small, large] = [await pathInfoOf(library), await pathInfoOf(later)].map((path) =>
      Number(path.narSize),
    ) as [number, number];
    const cell = (size: number) => `\t${`${size}`.padStart(11)}`;
    expect(sizes.stdout).toBe(
      `${library}${cell(small)}${cell(small)}\n${later.padEnd(library.length)}${cell(large)}${cell(large + small)}\n`,
    );
  });

  it("prints JSON with the keys of Nix, and null for what is absent", async () => {
    const outcome = await run("path-info", "--json", "--closure-size", program, ABSENT);
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toBe(
      `tvix-store: Cannot find "${ABSENT}": the store has no such store path\n`,
    );
    const { narSize } = await pathInfoOf(program);
    const librarySize = (await pathInfoOf(library)).narSize;
    expect(JSON.parse(outcome.stdout)).toEqual({
      [program]: {
        ca: expect.stringMatching(/^fixed:r:sha256:[0-9a-z]{52}$/),
        closureSize: Number(narSize + librarySize),
        deriver: null,
        narHash: expect.stringMatching(/^sha256-.{43}=$/),
        narSize: Number(narSize),
        references: [library],
        root: { type: "directory", digest: expect.stringMatching(/^b3:/) },
        signatures: [],
        storeDir: "/nix/store",
      },
      [ABSENT]: null,
    });
  });

  it("refuses what is no store path, and prints the others", async () => {
    const outcome = await run("path-info", `${program}/bin`, "nonsense", library);
    expect(outcome).toMatchObject({ status: 1, stdout: `${library}\n` });
    expect(outcome.stderr).toContain('Cannot find "nonsense"');
    expect(outcome.stderr).toContain("expected a store path or its hash part");
  });
});

describe("tvix-store sign", () => {
  it("adds a signature that covers the store path, and keeps the others", async () => {
    const keys = ["one-1", "two-1"].map((name) => SigningKey.generate(name));
    for (const key of keys) writeFileSync(join(folder.path, key.name), key.toSecretText());
    const first = await run("sign", "--closure", "-k", "one-1", program);
    expect(first).toEqual({ status: 0, stderr: "", stdout: `${library}\n${program}\n` });
    const second = await run("sign", "--all", "--key-file", "two-1");
    expect(second.stdout.trim().split("\n").sort()).toEqual([library, program, later].sort());
    const again = await run("sign", "-k", "two-1", library, ABSENT);
    expect(again).toMatchObject({ status: 1, stdout: "", stderr: expect.stringContaining(ABSENT) });
    const signed = await pathInfoOf(program);
    const valid = signed.signatures.map((signature, i) =>
      keys[i]!.verifyingKey.verify(fingerprint(signed), signature),
    );
    expect(valid).toEqual([true, true]);
    const printed = await run("path-info", "--sigs", program);
    const [ca, ...signatures] = printed.stdout.split("\t")[1]!.trim().split(" ");
    expect(ca).toMatch(/^ca:fixed:r:sha256:/);
    expect(signatures.map((text) => parseSignature(text).name)).toEqual(["one-1", "two-1"]);
  });
});

describe("tvix-store du", () => {
  it("tells what store paths take together, and what they share", async () => {
    const [json, table] = await Promise.all([
      run("du", "--closure", "--json", program, later),
      run("du", program, later, ABSENT),
    ]);
    expect(json).toMatchObject({ status: 0, stderr: "" });
    const { paths, total } = JSON.parse(json.stdout);
    const [librarySize, pathSize, laterSize] = await Promise.all(
      [library, program, later].map(async (path) => Number((await pathInfoOf(path)).narSize)),
    );
    const shared = 600_000 + 1000 + library.length;
    expect(paths[program]).toEqual({
      logical: pathSize! + librarySize!,
      deduplicated: shared + "text".length,
      compressed: expect.any(Number),
      shared,
    });
    expect(paths[later]).toMatchObject({ deduplicated: shared + "longer".length, shared });
    expect(total).toEqual({
      logical: pathSize! + laterSize! + 2 * librarySize!,
      deduplicated: shared + "textlonger".length,
      compressed: expect.any(Number),
    });
    expect(total.compressed).toBeGreaterThan(600_000); // random bytes do not compress
    expect(total.compressed).toBeLessThan(603_000);
    expect(table).toMatchObject({ status: 1, stderr: expect.stringContaining(ABSENT) });
    expect(table.stdout.split("\n").map((line) => line.trim().replace(/ {2,}/g, "|"))).toEqual([
      "LOGICAL|DEDUPLICATED|COMPRESSED|SHARED",
      expect.stringMatching(`KiB\\|586.0 KiB\\|${program}$`),
      expect.stringMatching(`KiB\\|586.0 KiB\\|${later}$`),
      expect.stringMatching(/KiB\|total$/),
      "",
    ]);
  });

  it("tells what chunks take in an object store, also behind a local one", async () => {
    const bucket = `objectstore+file://${folder.path}/bucket`;
    const use = (address: string) => [`--blob-service-addr=${address}`, ...options.slice(1)];
    const file = join(folder.path, "library");
    const [path = ""] = (await tvixStore(["import", file, ...use(bucket)])).stdout.split("\n");
    const combined = `combined://?near=memory://&far=${encodeURIComponent(bucket)}`;
    const outcomes = await Promise.all(
      [bucket, combined].map((address) => tvixStore(["du", path, "--json", ...use(address)])),
    );
    const chunks = readdirSync(join(folder.path, "bucket/chunks"), { recursive: true })
      .map((name) => statSync(join(folder.path, "bucket/chunks", `${name}`)))
      .filter((found) => found.isFile());
    for (const { status, stdout, stderr } of outcomes) {
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(JSON.parse(stdout).total).toMatchObject({
        deduplicated: 1000,
        compressed: chunks.reduce((sum, { size }) => sum + size, 0),
      });
    }
  });

  it("says so where the store does not tell what chunks take, also through a daemon", async () => {
    const anywhere = "--listen-address=127.0.0.1:0";
    const inMemory = ["blob", "directory", "path-info"].map(
      (kind) => `--${kind}-service-addr=memory://`,
    );
    await using forgetful = await startDaemon([anywhere, ...inMemory]);
    const args = throughDaemon(`grpc+http://${forgetful.addresses[0]}`);
    const file = join(folder.path, "library");
    const [path = ""] = (await tvixStore(["import", file, ...args])).stdout.split("\n");
    await using daemon = await startDaemon([anywhere, ...options]);
    const packs = throughDaemon(`grpc+http://${daemon.addresses[0]}`);
    const [table, json, known, direct] = await Promise.all([
      tvixStore(["du", path, ...args]),
      tvixStore(["du", path, "--json", ...args]),
      tvixStore(["du", program, "--json", ...packs]),
      tvixStore(["du", program, "--json", ...options]),
    ]);
    expect(known).toEqual(direct);
    expect(table.stderr).toMatch(/^tvix-store: the store does not tell .* compressed.*\n$/);
    expect(table.stdout).toMatch(/ KiB +\d+ B +- +0 B +\/nix/);
    expect(json).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(json.stdout).total.compressed).toBeNull();
  });
});

describe("tvix-store diff", () => {
  it("prints what is different, and exits with 1", async () => {
    const [text, json] = await Promise.all([
      run("diff", program, later),
      run("diff", "--json", program, later),
    ]);
    expect(text).toEqual({
      status: 1,
      stderr: "",
      stdout:
        '~ bin/run  executable\n~ link  symlink (-> "text") -> folder\n+ link/new  0 bytes\n~ text  4 -> 6 bytes\n',
    });
    const differences = JSON.parse(json.stdout);
    expect(differences.map(({ path }: { path: string }) => path)).toEqual([
      "bin/run",
      "link",
      "link/new",
      "text",
    ]);
    expect(differences[2]).toEqual({
      path: "link/new",
      before: null,
      after: { type: "file", digest: expect.any(String), executable: false, size: 0 },
    });
  });

  it("exits with 0 if nothing is different, and with 2 if it fails", async () => {
    const [equal, none, failed] = await Promise.all([
      run("diff", `${program}/same`, `${later}/same`),
      run("diff", "--json", `${program}/same`, `${later}/same`),
      run("diff", program, ABSENT),
    ]);
    expect(equal).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(none).toEqual({ status: 0, stdout: "[]\n", stderr: "" });
    expect(failed).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringContaining(ABSENT),
    });
  });
});

describe("commands that read", () => {
  it("take stores that a file describes", async () => {
    const composition = join(folder.path, "stores.toml");
    writeFileSync(composition, compositionIn(join(folder.path, "store")));
    const key = join(folder.path, "described-key");
    writeFileSync(key, SigningKey.generate("described-1").toSecretText());
    const described = async (...args: string[]) => {
      const outcome = await tvixStore([...args, `--store-composition=${composition}`]);
      expect(outcome).toMatchObject({ status: args[0] === "diff" ? 1 : 0, stderr: "" });
      return outcome.stdout;
    };
    const at = (name: string) => join(folder.path, name);
    const [listed, used, archive, all, different] = await Promise.all([
      described("ls", program),
      described("du", "--json", library),
      described("nar", library),
      described("path-info", "--all"),
      described("diff", `${program}/text`, `${later}/text`),
      described("restore", `${program}/text`, at("restored text")),
      described("sign", `--key-file=${key}`, library),
    ]);
    expect(listed).toBe("./bin\n./link\n./same\n./text\n");
    expect(JSON.parse(used).total.deduplicated).toBe(1000);
    expect(archive).toContain("nix-archive-1");
    expect(all.trim().split("\n").toSorted()).toEqual([library, program, later].toSorted());
    expect(different).toContain("4 -> 6 bytes");
    expect(readFileSync(at("restored text"), "utf8")).toBe("text");
    const { signatures } = await pathInfoOf(library);
    expect(signatures.map(({ name }) => name)).toContain("described-1");
  });

  it("make no store at a mistyped address, and say what is missing", async () => {
    const nowhere = join(folder.path, "mistyped");
    const key = join(folder.path, "some-key");
    writeFileSync(key, SigningKey.generate("some-1").toSecretText());
    const commands = [
      ...["ls", "cat", "nar", "path-info", "du"].map((command) => [command, program]),
      ...[
        ["diff", program, later],
        ["restore", program, join(folder.path, "restored")],
      ],
      ...[
        ["sign", `--key-file=${key}`, program],
        ["mount", folder.path],
      ],
      ["virtiofs", join(folder.path, "guests")],
    ];
    const stores = embeddedIn(nowhere);
    const outcomes = await Promise.all([
      ...commands.map((command) => tvixStore([...command, ...stores])),
      tvixStore(["copy", "--from", nowhere, "--to", join(folder.path, "copied"), program]),
      tvixStore([
        "cat",
        `${program}/text`,
        `--blob-service-addr=pack://${nowhere}`,
        ...options.slice(1),
      ]),
    ]);
    for (const { status, stdout, stderr } of outcomes) {
      expect({ stdout, stderr }).toEqual({
        stdout: "",
        stderr: expect.stringMatching(
          /^tvix-store: (sqlite|pack):\/\/\S*\/mistyped\S*: Cannot open it: expected a store, found no "[^\n]*; check its address[^\n]*\n$/,
        ),
      });
      expect([1, 2]).toContain(status);
    }
    expect(existsSync(nowhere)).toBe(false);
  });

  it("make the stores that are filled by reading", async () => {
    await using daemon = await startDaemon(["--listen-address=127.0.0.1:0", ...options]);
    const filled = embeddedIn(join(folder.path, "filled"));
    const cache = [
      ...filled.slice(0, 2),
      `--path-info-service-addr=nix+http://${daemon.addresses[0]}`,
    ];
    const text = await tvixStore(["cat", `${program}/text`, ...cache]);
    expect(text).toEqual({ status: 0, stdout: "text", stderr: "" });
    const local = `combined://?near=${encodeURIComponent(`pack://${folder.path}/near`)}`;
    const combined = `${local}&far=${encodeURIComponent(`pack://${folder.path}/store/blobs`)}`;
    const read = ["cat", `${program}/text`, `--blob-service-addr=${combined}`, ...options.slice(1)];
    expect(await tvixStore(read)).toEqual({ status: 0, stdout: "text", stderr: "" });
    expect(existsSync(join(folder.path, "near"))).toBe(true);
  });
});
