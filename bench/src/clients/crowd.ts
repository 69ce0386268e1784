/**
 * Downloads the NAR of the only store path in a PathInfo service, as 64 slow clients of a binary cache on a port of this machine,
 * while 16 others upload NARs of 50 MB, no two of which have a chunk in common.
 *
 *   crowd.ts PORT PATH_INFOS nar|nar.zst
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { request } from "node:http";
import { Readable } from "node:stream";
import { encodeNixbase32, NarWriter, openPathInfoService } from "@tvix/store";
import { library } from "../trees/content.ts";
import { seeded } from "../trees/random.ts";
import { onlyPathInfo } from "./only-path-info.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const DOWNLOADS = 64;
const UPLOADS = 16;

/** How many bytes a download takes a second. */
const RATE = 200_000;

const MB = 1_000_000;
const FILE_BYTES = 50 * MB;

/** Bytes of files, and how often some of them differ, in bytes: more often than chunks end. */
const CONTENT = library(seeded(4001), MB);
const MARK_DISTANCE = 10_000;

const [port, pathInfos, what] = process.argv.slice(2) as [string, string, "nar" | "nar.zst"];
const url = `http://127.0.0.1:${port}/nar`;
await using service = await openPathInfoService(pathInfos);
const { storePath, narSha256 } = await onlyPathInfo(service);
const hash = encodeNixbase32(storePath.hashPart);
const nar = `${url}/${encodeNixbase32(narSha256)}.${what}?hash=${hash}`;
const firstSeed = what === "nar" ? 0 : UPLOADS; // nothing is uploaded twice to one cache
const uploads = Array.from({ length: UPLOADS }, (_, i) => firstSeed + i).map((seed) => {
  return { seed, name: nameOf(seed) };
});
const downloads = Array.from({ length: DOWNLOADS }, download);
try {
  const seconds = await secondsOf(async () => {
    await Promise.all(uploads.map(upload));
  });
  const ended = downloads.find(({ exitCode }) => exitCode !== null);
  if (ended) throw new Error(`Cannot use this run: a download ended with ${ended.exitCode}`);
  reportWork({ seconds, bytes: UPLOADS * FILE_BYTES });
} finally {
  for (const child of downloads) child.kill();
}

function download(): ChildProcess {
  const options = ["--silent", "--fail", "--output", "/dev/null", "--limit-rate", `${RATE}`];
  return spawn("curl", [...options, nar], { stdio: "inherit" });
}

async function upload({ seed, name }: { seed: number; name: string }): Promise<void> {
  const put = request(`${url}/${name}`, { method: "PUT" });
  const answered = once(put, "response");
  Readable.from(narOf(seed)).pipe(put);
  const [response] = await answered;
  if (response.statusCode !== 201) throw new Error(`Cannot upload: status ${response.statusCode}`);
  response.resume();
}

function nameOf(seed: number): string {
  const hasher = createHash("sha256");
  for (const piece of narOf(seed)) hasher.update(piece);
  return `${encodeNixbase32(hasher.digest())}.nar`;
}

/** The NAR of a file, in pieces. */
function* narOf(seed: number): Generator<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const writer = new NarWriter((bytes) => pieces.push(bytes));
  writer.file(BigInt(FILE_BYTES), false);
  for (let at = 0; at < FILE_BYTES; at += CONTENT.length) {
    const content = Buffer.from(CONTENT);
    for (let mark = 0; mark < content.length; mark += MARK_DISTANCE) {
      content.writeDoubleLE(seed * FILE_BYTES + at + mark, mark);
    }
    writer.contents(content);
    yield* pieces.splice(0);
  }
  writer.finish();
  yield* pieces;
}
