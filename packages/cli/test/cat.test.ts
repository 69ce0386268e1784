import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { blake3Digest } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { embeddedIn, MAIN, temporaryFolder, tvixStore } from "./harness.ts";
import { runBytes } from "./run-bytes.ts";

const LARGE = seededBytes("large", 3_000_000);
/** A name that is not UTF-8. */
const ODD = Buffer.from("a\xff\xe2\x82b", "latin1");

let folder: ReturnType<typeof temporaryFolder>;
let options: string[];
/** The store path of the folder `tree`. */
let tree: string;
beforeAll(async () => {
  folder = temporaryFolder();
  options = embeddedIn(join(folder.path, "store"));
  const at = join(folder.path, "tree");
  mkdirSync(join(at, "sub"), { recursive: true });
  writeFileSync(join(at, "sub/large"), LARGE);
  writeFileSync(join(at, "text"), "text\n");
  writeFileSync(join(at, "empty"), "");
  writeFileSync(Buffer.concat([Buffer.from(`${at}/`), ODD]), "odd\n");
  symlinkSync("text", join(at, "link"));
  const { stdout } = await tvixStore(["import", at, ...options]);
  tree = stdout.trim();
  symlinkSync(tree, join(folder.path, "result"));
});
afterAll(() => folder[Symbol.dispose]());

const cat = (...objects: (string | Buffer)[]) =>
  runBytes(["cat", ...objects, ...options], { cwd: folder.path });

describe("tvix-store cat", () => {
  it("writes files on stdout in the order given, whatever names them", async () => {
    const base = tree.slice("/nix/store/".length);
    const outcome = await cat(
      `${tree}/text`,
      `${base}/sub/large`,
      `${base.slice(0, 32)}/text`,
      `${tree}/empty`,
      `${blake3Digest(LARGE)}`,
      `b3:${blake3Digest(Buffer.from("text\n")).hex}`,
      "result/text",
      `${folder.path}/tree/../result/sub/large`,
      Buffer.concat([Buffer.from(`${tree}/`), ODD]),
      Buffer.concat([Buffer.from("./result/"), ODD]),
    );
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    const text = Buffer.from("text\n");
    const odd = Buffer.from("odd\n");
    expect(outcome.stdout).toEqual(
      Buffer.concat([text, LARGE, text, LARGE, text, text, LARGE, odd, odd]),
    );
  });

  it("names what is no file, or not there, and writes the others", async () => {
    const wrong = [
      tree,
      `${tree}/link`,
      `${tree}/none`,
      `${tree}/text/below`,
      `/nix/store/${"0".repeat(32)}-none`,
      `b3:${"ab".repeat(32)}`,
      "nonsense",
      "./tree/text",
    ];
    const outcome = await cat(...wrong, `${tree}/text`);
    expect(outcome).toMatchObject({ status: 1, stdout: Buffer.from("text\n") });
    const reasons = [
      "expected a file, found a directory",
      'expected a file, found a symlink to "text"',
      `"${tree}" has no entry "none"`,
      `"${tree}/text" is a file`,
      "the store has no such store path",
      "the store has neither a directory nor a blob of this digest",
      'expected "/nix/store/HASH-NAME"',
      'Cannot find "./tree/text" in a store',
    ];
    const lines = outcome.stderr.trimEnd().split("\n");
    expect(lines).toEqual(reasons.map((reason) => expect.stringContaining(reason)));
    for (const line of lines) expect(line).toMatch(/^tvix-store: Cannot /);
  });

  it("ends quietly with 141 when nobody reads its output any more", async () => {
    const child = spawn(process.execPath, [MAIN, "cat", `${tree}/sub/large`, ...options]);
    const exit = once(child, "close");
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    expect(await exit).toEqual([141, null]);
    expect(stderr).toBe("");
  });

  it("says where stores are, and what its exit status means", async () => {
    const { status, stdout } = await tvixStore(["cat", "--help"]);
    expect(status).toBe(0);
    for (const text of ["Examples:", "Exit status:", "--blob-service-addr", "b3:DIGEST"]) {
      expect(stdout).toContain(text);
    }
  });
});
