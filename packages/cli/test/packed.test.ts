import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { readTreeExpected, readTreeSpecs, writeTree } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

/** The newest release of Node that `engines` allows; raise both together. */
const NEWEST_NODE = "26.10.0";

const PACKAGES = ["proto", "castore", "store", "nar-bridge", "cli", "conformance"] as const;
type Package = (typeof PACKAGES)[number];

const execFileAsync = promisify(execFile);

const workspace = fileURLToPath(new URL("../../..", import.meta.url));
const folder = temporaryFolder();
const tarballs = new Map<Package, string>();

/** A folder into which @tvix/cli was installed with all that it depends on. */
const app = join(folder.path, "app");
/** A folder into which @tvix/castore was installed, with no other package of ours but @tvix/proto. */
const alone = join(folder.path, "alone");
const nodes = join(folder.path, "nodes");

beforeAll(async () => {
  const build = `node-${process.platform}-${process.arch}`;
  const installed = install(nodes, [
    `oldest@npm:${build}@${oldestNode()}`,
    `newest@npm:${build}@${NEWEST_NODE}`,
  ]);
  const { packageManager } = readManifest(workspace);
  const pack = ["--yes", packageManager, "pack", "--pack-destination", folder.path];
  // The command is built before any test; to build it again would pull it away from those that run it.
  const cli = { cwd: join(workspace, "packages/cli") };
  await execFileAsync("npx", [...pack, "--config.ignore-scripts=true"], cli);
  const others = PACKAGES.filter((name) => name !== "cli").map((name) => `--filter=@tvix/${name}`);
  await execFileAsync("npx", [...pack, "--recursive", ...others], { cwd: workspace });
  for (const name of PACKAGES) {
    const file = readdirSync(folder.path).find((file) => file.startsWith(`tvix-${name}-`))!;
    tarballs.set(name, join(folder.path, file));
  }
  await Promise.all([
    installed,
    install(app, (["proto", "castore", "store", "cli"] as const).map(tarballOf)),
    install(alone, (["proto", "castore"] as const).map(tarballOf)),
  ]);
}, 600_000);
afterAll(() => folder[Symbol.dispose]());

function run(cwd: string, command: string, ...args: string[]): string {
  const stdio = ["ignore", "pipe", "inherit"] as const;
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: [...stdio] });
}

function readManifest(path: string) {
  return JSON.parse(readFileSync(join(path, "package.json"), "utf8"));
}

function tarballOf(name: Package): string {
  return tarballs.get(name)!;
}

/** The files in a tarball, each below `package/`. */
function filesOf(name: Package): string[] {
  return run(folder.path, "tar", "-tzf", tarballOf(name)).trim().split("\n");
}

async function install(path: string, specs: readonly string[]): Promise<void> {
  mkdirSync(path);
  writeFileSync(join(path, "package.json"), '{ "private": true, "type": "module" }');
  const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent"];
  await execFileAsync("npm", ["install", ...quiet, ...specs], { cwd: path });
}

/** The oldest release of Node that `engines` allows, which all packages have in common. */
function oldestNode(): string {
  const ranges = PACKAGES.map((name) => readManifest(join(workspace, "packages", name)).engines);
  const [oldest] = new Set(ranges.map(({ node }) => /^>=(\d+\.\d+\.\d+) </.exec(node)?.[1]));
  for (const { node } of ranges) expect(node).toBe(`>=${oldest} <27`);
  return oldest!;
}

/** The program that a Node is. */
function nodeOf(which: string): string {
  return join(nodes, "node_modules", which, "bin/node");
}

/** The command that npm has linked. */
const command = join(app, "node_modules/.bin/tvix-store");

/** The first program in the README of a package. */
function readmeProgram(name: Package): string {
  const readme = readFileSync(join(workspace, "packages", name, "README.md"), "utf8");
  const program = /^```js\n(.*?)^```$/ms.exec(readme)?.[1];
  if (program === undefined) throw new Error(`no program in the README of ${name}`);
  return program;
}

describe.each(["oldest", "newest"])("the packed tvix-store on the %s Node", (which) => {
  const program = [nodeOf(which), command] as const;

  it("starts as a program, and is the version that package.json says", () => {
    const node = which === "oldest" ? oldestNode() : NEWEST_NODE;
    expect(run(app, nodeOf(which), "--version")).toBe(`v${node}\n`);
    const PATH = dirname(nodeOf(which));
    const version = execFileSync(command, ["--version"], { env: { PATH }, encoding: "utf8" });
    expect(version).toBe(`${readManifest(join(workspace, "packages/cli")).version}\n`);
  });

  it("imports every tree of the vectors through a daemon", async () => {
    using source = temporaryFolder();
    const paths: string[] = [];
    for (const spec of readTreeSpecs()) {
      const path = join(source.path, spec.tree, spec.name);
      mkdirSync(dirname(path));
      await writeTree(spec, path);
      paths.push(path);
    }
    const expected = readTreeSpecs().map(
      ({ tree }) => readTreeExpected().find((one) => one.tree === tree)!.storePath,
    );
    const done = { status: 0, stdout: `${expected.join("\n")}\n` };
    const address = join(source.path, "sock");
    const args = [`--listen-address=${address}`, ...embeddedIn(join(source.path, "served"))];
    await using daemon = await startDaemon(args, { program });
    const services = throughDaemon(`grpc+unix://${address}`);
    expect(await tvixStore(["import", ...paths, ...services], { program })).toMatchObject(done);
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
  });

  it("imports a tree with threads, and archives of it, without a daemon", async () => {
    using source = temporaryFolder();
    const tree = join(source.path, "tree");
    mkdirSync(tree);
    for (let i = 0; i < 100; i++) writeFileSync(join(tree, `${i}`), `${i}\n`.repeat(10_000));
    const services = embeddedIn(join(source.path, "store"));
    const { stdout, stderr } = await tvixStore(["import", tree, ...services], { program });
    expect(stderr).toBe("");
    const expected = { status: 0, stdout, stderr: "" };
    for (const [ending, flag] of [
      ["tar", "-c"],
      ["tar.gz", "-cz"],
      ["tar.bz2", "-cj"],
      ["tar.xz", "-cJ"],
    ]) {
      const archive = join(source.path, `tree.${ending}`);
      execFileSync("tar", [flag!, "-f", archive, "-C", tree, "."]);
      const args = ["import", "--archive", archive, ...services];
      expect(await tvixStore(args, { program })).toEqual(expected);
    }
    expect(stdout).toMatch(/-tree\n$/);
  });
});

describe("the packed packages", () => {
  it.each(PACKAGES)("hold JavaScript and declarations of %s, and no other code to run", (name) => {
    const files = filesOf(name).filter((file) => !/^package\/(examples|protos)\//.test(file));
    const documents = ["LICENSE", "README.md", "package.json"].map((file) => `package/${file}`);
    expect(files).toEqual(expect.arrayContaining(documents));
    const others = files.filter((file) => !/^package\/(dist|bin)\/.*\.(c?js|d\.ts)$/.test(file));
    expect(others.sort()).toEqual(documents);
  });

  it.each(PACKAGES)("hold what the README of %s links to", (name) => {
    const files = filesOf(name);
    const readme = readFileSync(join(workspace, "packages", name, "README.md"), "utf8");
    const links = [...readme.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
    for (const link of links.filter((link) => !/^[a-z]+:/.test(link))) {
      const target = normalize(join("package", link.replace(/#.*/, "")));
      expect(files.filter((file) => file === target || file.startsWith(`${target}/`))).not.toEqual(
        [],
      );
    }
  });

  it("name a Go package in every proto file, as generators for Go ask for one", () => {
    const protos = join(app, "node_modules/@tvix/proto/protos");
    const files = readdirSync(protos, { recursive: true, encoding: "utf8" });
    const sources = files.filter((file) => file.endsWith(".proto"));
    expect(sources).toContain("tvix/castore/v1alpha/blob_batch.proto");
    for (const file of sources) {
      expect(readFileSync(join(protos, file), "utf8")).toMatch(
        /^option go_package = "[\w./;-]+";$/m,
      );
    }
  });

  it.each(["oldest", "newest"])("run castore's README, alone, on the %s Node", (which) => {
    expect(existsSync(join(alone, "node_modules/@tvix/store"))).toBe(false);
    writeFileSync(join(alone, "program.js"), readmeProgram("castore"));
    expect(run(alone, nodeOf(which), "program.js")).toMatch(/^b3:\S+: Hello, world!\n/);
    rmSync(join(alone, "store"), { recursive: true });
  });

  it("run the program of store's README", () => {
    writeFileSync(join(app, "program.js"), readmeProgram("store"));
    const [storePath, whole] = run(app, nodeOf("oldest"), "program.js", "package.json").split("\n");
    expect(storePath).toMatch(/^\/nix\/store\/[0-9a-z]{32}-package\.json$/);
    expect(whole).toBe("true");
  });

  it.each(["oldest", "newest"])("hash with WebAssembly on the %s Node, if need be", (which) => {
    const scope = join(alone, "node_modules/@napi-rs");
    for (const name of readdirSync(scope).filter((name) => name.startsWith("blake-hash"))) {
      rmSync(join(scope, name), { recursive: true });
    }
    const program = `import { MemoryBlobService, putBlob } from "@tvix/castore";
      console.log((await putBlob(new MemoryBlobService(), new Uint8Array(1))).hex);`;
    writeFileSync(join(alone, "hash.js"), program);
    // The second of the test vectors that the authors of BLAKE3 publish.
    const expected = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213\n";
    expect(run(alone, nodeOf(which), "hash.js")).toBe(expected);
  });
});
