import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import {
  B3Digest,
  type BlobService,
  type Directory,
  type DirectoryService,
  type Node,
} from "@tvix/castore";
import { expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

const KILLS = 6;

/** Returns a generator of pseudo-random numbers below `limit` with a fixed seed. */
function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Writes a tree that shares nothing with those of other rounds. */
function writeTree(folder: string, round: number): void {
  const random = seeded(round + 1);
  for (let i = 0; i < 12; i++) {
    mkdirSync(join(folder, `${i}`), { recursive: true });
    for (let j = 0; j < 12; j++) {
      const size = j === 0 ? 600_000 : random(20_000);
      const words = Buffer.alloc(size, `${round} ${i} ${j} ${random(1e9)} `);
      writeFileSync(join(folder, `${i}/${j}`), words);
    }
  }
}

/** Reads everything that a stored PathInfo or directory points at, to the last byte. */
async function expectWhole(folder: string): Promise<number> {
  const digests = storedDirectories(folder); // before the services open the same file
  await using services = await openServices(addressesOf(embeddedIn(folder)));
  const { blobService, directoryService, pathInfoService } = services;
  for (const digest of digests) {
    const directory = await directoryService.get(digest);
    for (const { node } of directory!.entries) {
      if (node.type === "directory") expect(await directoryService.get(node.digest)).toBeDefined();
      if (node.type === "file") expect(await blobService.has(node.digest)).toBe(true);
    }
  }
  let count = 0;
  for await (const { node } of pathInfoService.list()) {
    await expectNodeWhole(node, blobService, directoryService);
    count += 1;
  }
  return count;
}

/** Every directory there is, whether a PathInfo leads to it or not. */
function storedDirectories(folder: string): B3Digest[] {
  const database = new DatabaseSync(join(folder, "directories.sqlite"));
  const rows = database.prepare("SELECT digest FROM directories").all();
  database.close();
  return rows.map(({ digest }) => B3Digest.fromBytes(digest as Uint8Array));
}

async function expectNodeWhole(
  node: Node,
  blobService: BlobService,
  directoryService: DirectoryService,
): Promise<void> {
  if (node.type === "directory") {
    let root: Directory | undefined;
    for await (const directory of directoryService.getRecursive(node.digest)) {
      root ??= directory;
      for (const entry of directory.entries) {
        if (entry.node.type !== "file") continue;
        await expectNodeWhole(entry.node, blobService, directoryService);
      }
    }
    expect(root?.size).toBe(node.size);
  } else if (node.type === "file") {
    let size = 0n;
    for await (const data of (await blobService.read(node.digest))!) size += BigInt(data.length);
    expect(size).toBe(node.size);
  }
}

it(`keeps everything whole that a record points to, through ${KILLS} kills in mid-import`, async () => {
  using folder = temporaryFolder();
  const random = seeded(42);
  const address = `${folder.path}/sock`;
  let finished = 0;
  let interrupted = 0;
  for (let round = 0; round < KILLS; round++) {
    const tree = join(folder.path, "tree");
    writeTree(tree, round);
    await using daemon = await startDaemon([
      `--listen-address=${address}`,
      ...embeddedIn(folder.path),
    ]);
    const services = throughDaemon(`grpc+unix://${address}?retry_ms=500`);
    const importing = tvixStore(["import", tree, ...services]);
    await sleep(150 + random(900));
    daemon.process.kill("SIGKILL");
    const { status } = await importing;
    if (status === 0) finished += 1;
    else interrupted += 1;
    expect(await expectWhole(folder.path)).toBeGreaterThanOrEqual(finished);
  }
  expect(interrupted).toBeGreaterThan(0);
}, 120_000);
