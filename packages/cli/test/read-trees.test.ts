import { execFileSync } from "node:child_process";
import { chmodSync, lstatSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { embeddedIn, temporaryFolder, tvixStore } from "./harness.ts";
import { runBytes } from "./run-bytes.ts";

let folder: ReturnType<typeof temporaryFolder>;
let options: string[];
/** The store paths of the folders `tree` and `odd`. */
let tree: string;
let odd: string;
/** A name that is not UTF-8, with a newline. */
const ODD = Buffer.from("a\xff\nb", "latin1");

beforeAll(async () => {
  folder = temporaryFolder();
  options = embeddedIn(join(folder.path, "store"));
  const at = join(folder.path, "tree");
  mkdirSync(join(at, "sub/deep/void"), { recursive: true });
  writeFileSync(join(at, "empty"), "");
  writeFileSync(join(at, "run"), "#!/bin/sh\n");
  chmodSync(join(at, "run"), 0o755);
  symlinkSync("sub/nowhere", join(at, "link"));
  writeFileSync(join(at, "sub/large"), seededBytes("large", 700_000));
  writeFileSync(join(at, 'sub/ü "quoted"'), "ü");
  mkdirSync(join(folder.path, "odd"));
  writeFileSync(Buffer.concat([Buffer.from(`${folder.path}/odd/`), ODD]), "odd");
  const { stdout } = await tvixStore(["import", at, join(folder.path, "odd"), ...options]);
  [tree = "", odd = ""] = stdout.split("\n");
});
afterAll(() => folder[Symbol.dispose]());

const run = (...args: (string | Buffer)[]) => runBytes([...args, ...options], { cwd: folder.path });

const LISTING = `\
-r--r--r--                    0 ./empty
lrwxrwxrwx                    0 ./link -> sub/nowhere
-r-xr-xr-x                   10 ./run
dr-xr-xr-x                    0 ./sub
dr-xr-xr-x                    0 ./sub/deep
dr-xr-xr-x                    0 ./sub/deep/void
-r--r--r--               700000 ./sub/large
-r--r--r--                    2 ./sub/ü "quoted"
`;

describe("tvix-store ls", () => {
  it("lists folders, files and symlinks, each under its name if there are several", async () => {
    const objects = [tree, `${tree}/sub/large`, `${tree}/link`];
    const outcome = await run("ls", ...objects);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    expect(outcome.stdout.toString()).toBe(
      `${objects[0]}:\n./empty\n./link\n./run\n./sub\n\n${objects[1]}:\nlarge\n\n${objects[2]}:\nlink\n`,
    );
  });

  it("writes names as their bytes, and ends lines with NUL when asked to", async () => {
    const [lines, ended, itself] = await Promise.all([
      run("ls", odd),
      run("ls", "--recursive", "--null", odd),
      run("ls", "--long", "--directory", odd),
    ]);
    const name = Buffer.concat([Buffer.from("./"), ODD]);
    expect(lines.stdout).toEqual(Buffer.concat([name, Buffer.from("\n")]));
    expect(ended.stdout).toEqual(Buffer.concat([name, Buffer.from("\0")]));
    expect(itself.stdout.toString()).toBe("dr-xr-xr-x                    0 .\n");
  });

  it("prints JSON, a line an object, with bytes that are not UTF-8 as lone surrogates", async () => {
    const outcome = await run("ls", "--json", tree, odd, `${tree}/run`);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    const documents = outcome.stdout
      .toString()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(documents).toEqual([
      {
        type: "directory",
        entries: {
          empty: { type: "regular", size: 0 },
          link: { type: "symlink", target: "sub/nowhere" },
          run: { type: "regular", size: 10, executable: true },
          sub: { type: "directory" },
        },
      },
      { type: "directory", entries: { "a\udcff\nb": { type: "regular", size: 3 } } },
      { type: "regular", size: 10, executable: true },
    ]);
  });

  it("refuses options that exclude each other", async () => {
    const outcome = await run("ls", "--json", "-l", tree);
    expect(outcome).toMatchObject({ status: 1, stderr: expect.stringContaining("found both") });
  });
});

describeWithTools("a tree in a store", ["nix-store", "with-nix-root"], (nixStore, withNix) => {
  const dump = (path: string) =>
    execFileSync(nixStore, ["--dump", path], { maxBuffer: 10_000_000 });

  it("is listed as real Nix lists it", async () => {
    const nix = (...args: string[]) =>
      execFileSync(withNix, [join(folder.path, "nix"), ...args], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, NIX_CONFIG: "extra-experimental-features = nix-command" },
      });
    const path = nix("nix-store", "--add", join(folder.path, "tree")).trim();
    expect(path).toBe(tree);
    const [text, json] = await Promise.all([
      run("ls", "-lR", tree),
      run("ls", "--json", "-R", `${tree}/`),
    ]);
    expect(text).toMatchObject({ status: 0, stderr: "" });
    expect(text.stdout.toString()).toBe(LISTING);
    expect(nix("nix", "store", "ls", "-lR", path)).toBe(LISTING);
    const listed = JSON.parse(nix("nix", "store", "ls", "--json", "-R", path));
    expect(JSON.parse(json.stdout.toString())).toEqual(listed);
  });

  it("is written as the NAR of real Nix, on stdout or to a file", async () => {
    const [all, part, file] = await Promise.all([
      run("nar", tree),
      run("nar", `${tree}/sub`),
      run("nar", odd, "--output", "odd.nar"),
    ]);
    expect(all).toEqual({ status: 0, stderr: "", stdout: dump(join(folder.path, "tree")) });
    expect(part).toEqual({ status: 0, stderr: "", stdout: dump(join(folder.path, "tree/sub")) });
    expect(file).toEqual({ status: 0, stderr: "", stdout: Buffer.alloc(0) });
    expect(readFileSync(join(folder.path, "odd.nar"))).toEqual(dump(join(folder.path, "odd")));
  });

  it("is restored to what it was imported from", async () => {
    const target = Buffer.concat([Buffer.from(`${folder.path}/`), ODD]);
    const outcomes = await Promise.all([
      run("restore", tree, "restored"),
      run("restore", odd, target),
      run("restore", `${tree}/run`, "restored-run"),
      run("restore", `${tree}/link`, "restored-link"),
    ]);
    for (const outcome of outcomes) {
      expect(outcome).toEqual({ status: 0, stderr: "", stdout: Buffer.alloc(0) });
    }
    expect(dump(join(folder.path, "restored"))).toEqual(dump(join(folder.path, "tree")));
    expect(readFileSync(Buffer.concat([target, Buffer.from("/"), ODD])).toString()).toBe("odd");
    expect(lstatSync(join(folder.path, "restored-run")).mode & 0o777).toBe(0o555);
    expect(lstatSync(join(folder.path, "restored-link")).isSymbolicLink()).toBe(true);
  });
});
