import { realpathSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { SigningKey } from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  compositionIn,
  type Daemon,
  embeddedIn,
  MAIN,
  tvixStore as run,
  startDaemon,
  temporaryFolder,
  throughDaemon,
} from "./harness.ts";
import { describeWithNix, type Nix } from "./nix-versions.ts";

/** A package that refers to itself, to a library, to a tree that was added, and to a text. */
const EXPRESSION = `
  let
    sh = name: script: derivation {
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" script ];
    };
    text = builtins.toFile "text" "some text";
    library = sh "library" "mkdir $out; echo \${text} > $out/text; echo shared > $out/shared";
  in sh "package" ''
    mkdir -p $out/bin; echo $out \${library} \${./tree} > $out/bin/run; chmod +x $out/bin/run; ln -s \${library} $out/lib
  ''
`;

/** Folders that tvix-store needs, where Nix runs in a root folder of its own. */
const BIND = [
  fileURLToPath(new URL("../../..", import.meta.url)).replace(/\/$/, ""),
  dirname(realpathSync(process.execPath)),
].join(":");

describeWithNix("store paths in the database", (version, open) => {
  const folder = temporaryFolder();
  const key = SigningKey.generate("test-1");
  let nix: Nix;
  let daemon: Daemon;
  let url: string;
  let services: string;
  /** The package, and everything that it refers to. */
  let path: string;
  let closure: string[];

  /** Runs `tvix-store` where Nix is; its stderr follows its stdout. */
  const tvixStore = (args: string) =>
    nix.run(`${realpathSync(process.execPath)} ${MAIN} ${args} 2>&1 || echo "status $?"`, { BIND });

  beforeAll(async () => {
    nix = open(folder.path);
    const lines = Array.from({ length: 10_000 }, (_, i) => `${i} squared is ${i * i}\n`);
    writeFileSync(join(nix.folder, "tree"), lines.join(""));
    writeFileSync(join(nix.folder, "expression.nix"), EXPRESSION);
    writeFileSync(join(nix.folder, "key"), key.toSecretText());
    daemon = await startDaemon([
      ...embeddedIn(join(folder.path, "store")),
      "--listen-address=127.0.0.1:0",
    ]);
    url = `http://${daemon.addresses[0]}`;
    services = throughDaemon(`grpc+${url}`).join(" ");
    const out = await nix.run(`
      nix-store --init
      nix-build expression.nix >&2
      nix store sign --key-file key --recursive ./result
      readlink result
      nix-store -qR ./result
    `);
    [path = "", ...closure] = out.trim().split("\n");
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it("are imported with --closure once, and come out of nix copy as they went in", async () => {
    const without = await tvixStore(`import ./result ${services}`);
    expect(without).toMatch(
      /^.*leads to.*\ntvix-store: Cannot copy.*pass --closure.*\nstatus 1\n$/,
    );

    const outcome = await tvixStore(`import --closure ./result ${services}`);
    const [followed, ...imported] = outcome.trim().split("\n");
    expect(followed).toBe(`tvix-store: "./result" leads to "${path}", which is imported`);
    expect(imported.at(-1)).toBe(path);
    expect(imported.toSorted()).toEqual(closure.toSorted());
    expect(imported).toHaveLength(4);

    const infosOf = (store: string) => `nix path-info --json --recursive ${store} ${path}`;
    const trusting = `--option trusted-public-keys "${key.verifyingKey}"`;
    const [before, after] = (
      await nix.run(`
        ${infosOf("")}; echo
        nix copy --from ${url} --to "local?root=$PWD/second" ${trusting} ${path}
        ${infosOf('--store "local?root=$PWD/second"')}`)
    )
      .split("\n")
      .filter(Boolean)
      .map(comparable);
    expect(after).toEqual(before);
    expect(JSON.stringify(before)).toMatch(/deriver.*test-1:/);

    const again = await tvixStore(`import --json --closure ./result ${services}`);
    const reports = again.trim().split("\n").slice(1);
    expect(reports.map((line) => JSON.parse(line).bytesRead)).toEqual([0, 0, 0, 0]);
    const linked = await nix.run(`ln -s ${path} link; nix-store --add link`);
    expect(await tvixStore(`import ${linked.trim()} ${services}`)).toBe(linked);
  });

  it("are copied from where a local store is, or as a build exports them", async () => {
    const store = (name: string) => embeddedIn(join(nix.folder, name)).join(" ");
    const root = `local?real=${nix.folder}/store&state=${nix.folder}/var/nix`;
    const to = join(nix.folder, "copied");
    const copied = await run(["copy", "--from", root, "--to", to, "--closure", path]);
    expect(copied).toMatchObject({ status: 0, stderr: "" });
    expect(copied.stdout.trim().split("\n").toSorted()).toEqual(closure.toSorted());

    const compressedAt = async (level: number) => {
      const store = embeddedIn(join(folder.path, `level ${level}`));
      await using other = await startDaemon([...store, "--listen-address=127.0.0.1:0"]);
      const { stderr } = await run([
        ...["copy", "--from", root, "--to", `grpc+http://${other.addresses[0]}`],
        ...["--closure", path, `--zstd-level=${level}`, "--progress=plain"],
      ]);
      expect(stderr).toMatch(/-package: \d.*, \d\.\d s\n$/);
      const { stdout } = await run(["du", "--json", "--closure", path, ...store]);
      return JSON.parse(stdout).total.compressed;
    };
    expect(await compressedAt(19)).toBeLessThan(await compressedAt(1));

    const attributes = await nix.run(`nix-build --no-out-link -E '
      derivation {
        name = "graph"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
        args = [ "-c" "/bin/cat .attrs.json > \${builtins.placeholder "out"}" ];
        __structuredAttrs = true; exportReferencesGraph.closure = [ (import ./expression.nix) ];
      }'`);
    writeFileSync(join(nix.folder, "stores.toml"), compositionIn(join(nix.folder, "graph")));
    const options = "--store-composition stores.toml --store-mode 0750";
    const graph = await tvixStore(`copy ${attributes.trim()} ${options}`);
    expect(statSync(join(nix.folder, "graph")).mode & 0o777).toBe(0o750);
    expect(graph.trim().split("\n").toSorted()).toEqual(closure.toSorted());
    expect(await tvixStore(`copy - ${store("graph")} < ${attributes.trim()}`)).toBe("");
    expect(await tvixStore(`copy - ${store("graph")} < key`)).toMatch(
      /^tvix-store: Cannot read the reference graph in stdin: it is no JSON: .*\nstatus 1\n$/,
    );
  });

  if (version === "2.8") {
    it("are refused where Nix knows nothing of them, or their contents changed", async () => {
      const [changed] = closure.filter((one) => one.endsWith("-text"));
      await nix.run(
        `chmod +w ${changed}; echo more >> ${changed}; echo > /nix/store/${"0".repeat(32)}-x`,
      );
      const store = `${embeddedIn(join(nix.folder, "other")).join(" ")}`;
      expect(await tvixStore(`import ${changed} ${store}`)).toMatch(
        /^tvix-store: Cannot import.*-text": expected a NAR of \d+ bytes.*found.*\nstatus 1\n$/,
      );
      const referring = await tvixStore(`copy --from local --closure ${path} ${store}`);
      expect(referring).toMatch(
        /-package": .*-library", to which it refers, could not be copied\n/,
      );
      expect(referring).toMatch(
        /^\/nix\/store\/\w+-tree\n(?:.*\n)*tvix-store: 3 of 4 store paths failed\nstatus 1\n$/m,
      );
      expect(await tvixStore(`import /nix/store/${"0".repeat(32)}-x ${store}`)).toMatch(
        /^tvix-store: .*it is not a valid path of the local Nix store.*\nstatus 1\n$/,
      );
      expect(await tvixStore(`import --name plain ${changed} ${store}`)).toMatch(/-plain\n$/);
    });
  }
});

/** Returns what Nix tells of store paths, whatever its version, without what only the store knows. */
function comparable(json: string): unknown {
  const infos: Record<string, unknown> | Record<string, unknown>[] = JSON.parse(json);
  const all = Array.isArray(infos)
    ? infos
    : Object.entries(infos).map(([path, info]) => ({ path, ...(info as object) }));
  return all
    .map(({ registrationTime, ultimate, ...info }: Record<string, unknown>) => info)
    .toSorted((a, b) => (String(a.path) < String(b.path) ? -1 : 1));
}
