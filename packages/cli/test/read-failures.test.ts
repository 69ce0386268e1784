import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import {
  blake3Digest,
  Directory,
  encodeDirectory,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { StorePath } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openServices, type Services } from "../src/services.ts";
import { addressesOf, embeddedIn, MAIN, temporaryFolder, tvixStore } from "./harness.ts";

let folder: ReturnType<typeof temporaryFolder>;
let options: string[];
beforeAll(async () => {
  folder = temporaryFolder();
  options = embeddedIn(join(folder.path, "store"));
  await using services = await openServices(addressesOf(options));
  await register(services, "wide", await storeWideTree(services));
  const digest = blake3Digest(Buffer.from("no directory"));
  const target = symlinkTarget("nowhere");
  await register(services, "other", { type: "symlink", target });
  await register(services, "dangling", { type: "directory", digest, size: 1n });
});
afterAll(() => folder[Symbol.dispose]());

/** The store path of that name. */
const pathOf = (name: string) => StorePath.from(new Uint8Array(20).fill(name.length), name);

async function register(services: Services, name: string, node: Node): Promise<void> {
  await services.pathInfoService.put({
    storePath: pathOf(name),
    node,
    references: [],
    narSize: 1n,
    narSha256: new Uint8Array(32),
    signatures: [],
  });
}

/** Stores a tree of 100,000 files: a hundred times the same folder, of a thousand times the same file. */
async function storeWideTree({ blobService, directoryService }: Services): Promise<Node> {
  const file: Node = {
    type: "file",
    digest: await putBlob(blobService, Buffer.from("contents")),
    size: 8n,
    executable: false,
  };
  await using putter = directoryService.openPutter();
  let node: Node = file;
  for (const count of [1000, 100]) {
    const names = Array.from({ length: count }, (_, i) => pathComponent(`${i}`));
    const directory = Directory.from(names.map((name) => ({ name, node })));
    await putter.put(directory);
    node = { type: "directory", digest: encodeDirectory(directory).digest, size: directory.size };
  }
  await putter.close();
  return node;
}

const run = (...args: string[]) => tvixStore([...args, ...options], { cwd: folder.path });

describe("a command that reads", () => {
  it("says what is missing, and leaves nothing", async () => {
    const absent = pathOf("absent").toAbsolutePath();
    const dangling = pathOf("dangling").toAbsolutePath();
    const [none, ...broken] = await Promise.all([
      run("restore", absent, "out"),
      run("restore", dangling, "out"),
      run("nar", dangling, "-o", "dump"),
      run("ls", "-R", dangling),
    ]);
    expect(none).toEqual({
      status: 1,
      stdout: "",
      stderr: `tvix-store: Cannot find "${absent}": the store has no such store path\n`,
    });
    for (const outcome of broken) {
      expect(outcome).toMatchObject({ status: 1, stdout: "" });
      expect(outcome.stderr).toMatch(/^tvix-store: .*directory b3:\S+ is missing\n$/);
    }
    expect(readdirSync(folder.path)).toEqual(["store"]);
  });

  it("says that the NAR is not what is registered, and leaves nothing", async () => {
    const storePath = pathOf("other").toAbsolutePath();
    const outcomes = await Promise.all([
      run("nar", storePath, "-o", "dump"),
      run("restore", storePath, "out"),
    ]);
    for (const outcome of outcomes) expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcomes[0]!.stderr).toContain(`NAR of "${storePath}": expected sha256-`);
    expect(outcomes[1]!.stderr).toMatch(
      /^tvix-store: Cannot restore: expected a NAR of 1 bytes and sha256:0{52}, .*, found one of \d+ bytes and sha256:.*\n$/,
    );
    expect(readdirSync(folder.path)).toEqual(["store"]);
  });

  it("refuses a damaged chunk, and leaves nothing", async () => {
    const file = join(folder.path, "file");
    const contents = seededBytes("to be damaged", 600_000);
    mkdirSync(join(folder.path, "damaged"));
    const damaged = embeddedIn(join(folder.path, "damaged"));
    writeFileSync(file, contents);
    const path = (await tvixStore(["import", file, ...damaged])).stdout.trim();
    const packs = join(folder.path, "damaged/blobs/packs");
    const [pack = ""] = readdirSync(packs);
    const bytes = readFileSync(join(packs, pack));
    bytes[bytes.length - 1000]! ^= 1;
    writeFileSync(join(packs, pack), bytes);
    const run = (...args: string[]) => tvixStore([...args, ...damaged], { cwd: folder.path });
    const cat = await run("cat", path); // first, as a damaged chunk counts as absent once it was met
    const [nar, restore] = await Promise.all([
      run("nar", path, "-o", "dump"),
      run("restore", path, "out"),
    ]);
    expect([cat, nar, restore].map(({ status }) => status)).toEqual([1, 1, 1]);
    expect(cat.stderr).toMatch(/^tvix-store: .* is damaged$/m);
    expect(nar.stderr).toMatch(/^tvix-store: Cannot render NAR: blob b3:\S+ is missing\n$/);
    expect(restore.stderr).toMatch(/^tvix-store: Cannot read blob b3:\S+: it is missing\n$/);
    expect(readdirSync(folder.path).sort()).toEqual(["damaged", "file", "store"]);
  });

  it("leaves nothing of a restore that a signal ends", async () => {
    const child = spawn(
      process.execPath,
      [MAIN, "restore", pathOf("wide").toAbsolutePath(), join(folder.path, "out"), ...options],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    const exit = once(child, "close");
    const stderr = text(child.stderr);
    const drafts = () => readdirSync(folder.path).filter((name) => name.startsWith(".tvix-"));
    while (drafts().length === 0 || !existsSync(join(folder.path, drafts()[0]!, "1")))
      await sleep(5);
    child.kill("SIGINT");
    expect(await exit).toEqual([130, null]);
    expect(await stderr).toBe("tvix-store: Ended by SIGINT\n");
    expect(readdirSync(folder.path)).not.toContain("out");
    expect(drafts()).toEqual([]);
  });
});
