/**
 * Shows how a store grows: imports of 1, 4 and 16 times as many files and bytes, an index of five million
 * chunks, and a million PathInfos. Writes what it found to docs/scale.md.
 */
import { randomBytes, randomInt } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { B3Digest, PackBlobService } from "@tvix/castore";
import { openPathInfoService } from "@tvix/store";
import Sqlite from "better-sqlite3";
import { markdownTable } from "markdown-table";
import { buildClients } from "./build-clients.ts";
import { buildCommand } from "./build-command.ts";
import { describeMachine } from "./machine.ts";
import { diskBytes, type Finished, runMeasured } from "./measure.ts";
import { writeReport } from "./report.ts";
import { formatSpread, spreadOf } from "./spread.ts";
import { clientCommand } from "./subjects/client.ts";
import { storePathInfos } from "./subjects/path-infos.ts";
import { importCommand, ours } from "./subjects/tvix-store.ts";
import { largeFile, treeOfFiles } from "./trees/seeded.ts";
import { inspectTree, type Tree, warm } from "./trees/tree.ts";

const FACTORS = [1, 4, 16];
const FILES = 10_000;
const MEGABYTES = 128;
const ROUNDS = 3;
const CHUNKS = 5_000_000;
const LOOKUPS = 200_000;
const PATH_INFOS = 1_000_000;
const MB = 1e6;

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "tvix-bench");
await mkdir(cache, { recursive: true });
const folder = await mkdtemp(join(cache, "scale-"));
try {
  await buildCommand();
  await buildClients();
  const startUp = await startUpSeconds();
  const report = [
    `${new Date().toISOString().slice(0, 10)}. ${(await describeMachine()).join(". ")}.`,
    `A command that imports an empty file takes ${startUp.toFixed(2)} s, which is left out below.`,
    await growth("files", (factor) => treeOfFiles(cache, FILES * factor), startUp),
    await growth("MB in one file", (factor) => largeFile(cache, MEGABYTES * factor), startUp),
    await largeIndex(),
    await manyPathInfos(),
  ].join("\n\n");
  process.stdout.write(`${report}\n`);
  await writeReport(new URL("../../docs/scale.md", import.meta.url), report);
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function startUpSeconds(): Promise<number> {
  const path = join(folder, "empty");
  await writeFile(path, "");
  const tree = await inspectTree(path, "empty");
  const walls: number[] = [];
  for (let round = 0; round < ROUNDS; round++) walls.push((await importOnce(tree)).wallSeconds);
  return spreadOf(walls).median;
}

/** A table of imports of trees of several sizes. */
async function growth(
  what: "files" | "MB in one file",
  pathOf: (factor: number) => Promise<string>,
  startUp: number,
): Promise<string> {
  const rows: string[][] = [];
  for (const factor of FACTORS) {
    const tree = await inspectTree(await pathOf(factor), `${factor}x`);
    const runs = [];
    for (let round = 0; round < ROUNDS; round++) runs.push(await importOnce(tree));
    const amount = what === "files" ? tree.files : tree.bytes / MB;
    const each = runs.map(({ wallSeconds }) => ((wallSeconds - startUp) / amount) * 1e6);
    rows.push([
      `${amount.toFixed(0)} ${what}`,
      `${(tree.bytes / MB).toFixed(0)} MB`,
      `${formatSpread(spreadOf(runs.map(({ wallSeconds }) => wallSeconds)))} s`,
      `${formatSpread(spreadOf(each))} µs`,
      `${formatSpread(spreadOf(runs.map(({ peakBytes }) => peakBytes / MB)))} MB`,
    ]);
  }
  const unit = what === "files" ? "file" : "MB";
  return table(["import of", "bytes", "whole command", `time per ${unit}`, "peak memory"], rows);
}

async function importOnce(tree: Tree) {
  await warm(tree);
  const store = await mkdtemp(join(folder, "store-"));
  try {
    return await runMeasured(importCommand(ours, ours.addresses(store), tree.path));
  } finally {
    await rm(store, { recursive: true });
  }
}

/** What it takes to open a store of many chunks, and to look them up. */
async function largeIndex(): Promise<string> {
  const path = join(folder, "blobs");
  await (await PackBlobService.open({ path }))[Symbol.asyncDispose](); // makes an empty one
  const known = fillIndex(join(path, "index.sqlite"));
  const opened: number[] = [];
  const found: number[] = [];
  const missed: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await using service = await PackBlobService.open({ path });
    opened.push(performance.now() - start);
    found.push(await lookupMicroseconds(service, known, true));
    missed.push(await lookupMicroseconds(service, known.map(randomDigest), false));
  }
  const bytes = await diskBytes(path);
  return table(
    ["chunks", "index", "opened in", "found in", "missed in"],
    [
      [
        CHUNKS.toLocaleString("en"),
        `${(bytes / MB).toFixed(0)} MB`,
        `${formatSpread(spreadOf(opened))} ms`,
        `${formatSpread(spreadOf(found))} µs`,
        `${formatSpread(spreadOf(missed))} µs`,
      ],
    ],
  );
}

/** What it takes to open a store of many PathInfos, to look them up, and to list them. */
async function manyPathInfos(): Promise<string> {
  const place = await mkdtemp(join(folder, "path-infos-"));
  const [, , address] = ours.addresses(place);
  const known = await storePathInfos(address, PATH_INFOS);
  const bytes = await diskBytes(place);
  const opened: number[] = [];
  const found: number[] = [];
  const lists: Finished[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await using service = await openPathInfoService(address);
    opened.push(performance.now() - start);
    const sample = Array.from({ length: LOOKUPS }, () => known[randomInt(known.length)]!);
    const before = performance.now();
    for (const hashPart of sample) {
      if ((await service.get(hashPart)) === undefined) {
        throw new Error("Cannot use this run: a PathInfo that was stored is not found");
      }
    }
    found.push(((performance.now() - before) * 1000) / sample.length);
    lists.push(await runMeasured(clientCommand("list", address)));
  }
  return table(
    ["PathInfos", "database", "opened in", "found in", "listed in", "memory of a listing"],
    [
      [
        PATH_INFOS.toLocaleString("en"),
        `${(bytes / MB).toFixed(0)} MB`,
        `${formatSpread(spreadOf(opened))} ms`,
        `${formatSpread(spreadOf(found))} µs`,
        `${formatSpread(spreadOf(lists.map(({ wallSeconds }) => wallSeconds)))} s`,
        `${formatSpread(spreadOf(lists.map(({ peakBytes }) => peakBytes / MB)))} MB`,
      ],
    ],
  );
}

/** Adds chunks, whose packs do not exist, to an index; gives the digests of some of them. */
function fillIndex(file: string): B3Digest[] {
  using closing = new DisposableStack();
  const index = new Sqlite(file);
  closing.defer(() => index.close());
  const insert = index.prepare(
    `INSERT INTO chunks (digest, pack, "offset", stored_size, size, codec, live)
     VALUES (?, 1, ?, 80000, 250000, 1, 1)`,
  );
  const sample: B3Digest[] = [];
  index.transaction(() => {
    // In the order of the digests, as one would sort them to fill an index.
    for (let i = 0; i < CHUNKS; i++) {
      const digest = randomBytes(B3Digest.LENGTH);
      digest.writeUInt32BE(Math.floor((i / CHUNKS) * 2 ** 32));
      insert.run(digest, i * 80_052);
      if (i % Math.floor(CHUNKS / LOOKUPS) === 0) sample.push(B3Digest.fromBytes(digest));
    }
  })();
  return sample.sort(() => Math.random() - 0.5);
}

function randomDigest(): B3Digest {
  return B3Digest.fromBytes(randomBytes(B3Digest.LENGTH));
}

async function lookupMicroseconds(
  service: PackBlobService,
  digests: readonly B3Digest[],
  expected: boolean,
): Promise<number> {
  const start = performance.now();
  for (const digest of digests) {
    if ((await service.has(digest)) !== expected) {
      throw new Error(`Cannot use this run: expected has() of ${digest} to give ${expected}`);
    }
  }
  return ((performance.now() - start) * 1000) / digests.length;
}

function table(header: string[], rows: string[][]): string {
  return markdownTable([header, ...rows], { align: ["l", ...header.slice(1).map(() => "r")] });
}
