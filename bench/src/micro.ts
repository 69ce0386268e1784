/**
 * Micro benchmarks of what imports and reads consist of.
 *
 *   pnpm bench:micro [REGEX]
 */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import {
  blake3Digest,
  Directory,
  decodeDirectory,
  encodeDirectory,
  OutboardEncoder,
  PackBlobService,
  pathComponent,
} from "@tvix/castore";
import { NarInfo, NarWriter, ReferenceCandidates } from "@tvix/store";
import { bench, do_not_optimize, run } from "mitata";
import { Chunker } from "./chunker.ts";
import { library, text } from "./trees/content.ts";
import { seeded } from "./trees/random.ts";

const SIZES = [
  { label: "15 KB", data: text(seeded(1), 15_000) },
  { label: "256 KB", data: library(seeded(2), 256_000) },
];
const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

for (const { label, data } of SIZES) {
  const frame = zstdCompressSync(data, ZSTD);
  bench(`BLAKE3 of ${label}`, () => do_not_optimize(blake3Digest(data)));
  bench(`SHA-256 of ${label}`, () => do_not_optimize(createHash("sha256").update(data).digest()));
  bench(`zstd frame of ${label}`, () => do_not_optimize(zstdCompressSync(data, ZSTD)));
  bench(`zstd frame back to ${label}`, () => do_not_optimize(zstdDecompressSync(frame)));
}

const megabytes = library(seeded(3), 16_000_000);
bench("FastCDC cut of 16 MB", () => {
  const chunker = new Chunker();
  do_not_optimize([...chunker.push(megabytes)]);
  do_not_optimize(chunker.finish());
});

bench("outboard of 16 MB", () => {
  const encoder = new OutboardEncoder();
  encoder.update(megabytes);
  do_not_optimize(encoder.finish());
});

const directory = Directory.from(
  Array.from({ length: 100 }, (_, i) => ({
    name: pathComponent(`file-${i}.ts`),
    node: {
      type: "file",
      digest: blake3Digest(Buffer.from(String(i))),
      size: BigInt(i),
      executable: false,
    },
  })),
);
const encoded = encodeDirectory(directory);
bench("Directory of 100 encoded", () => do_not_optimize(encodeDirectory(directory)));
bench("Directory of 100 decoded", () => do_not_optimize(decodeDirectory(encoded.bytes)));

const contents = SIZES[0]!.data;
bench("NAR writer, 1,000 files of 15 KB", () => {
  const writer = new NarWriter((bytes) => do_not_optimize(bytes));
  writer.enterDirectory();
  for (let i = 0; i < 1000; i++) {
    writer.entry(pathComponent(`file-${i + 1000}`));
    writer.file(BigInt(contents.length), false);
    writer.contents(contents);
  }
  writer.leaveDirectory();
  writer.finish();
});

const NAR_INFOS = new URL("../../vectors/narinfos-cache.nixos.org.txt", import.meta.url);
const narInfos = (await readFile(NAR_INFOS, "utf8"))
  .split("\n\n")
  .map((text) => `${text.trim()}\n`);
bench(`${narInfos.length} narinfos parsed`, () => {
  for (const text of narInfos) do_not_optimize(NarInfo.parse(text));
});

const candidates = new ReferenceCandidates(
  narInfos.map((text) => NarInfo.parse(text).storePath.hashPart),
);
const listed = Buffer.from(narInfos.join("")); // as many store paths as there can be
bench("scan of 16 MB for 500 references", () => {
  do_not_optimize(candidates.openScan().update(megabytes));
});
bench("scan of 1 MB of store paths for 500 references", () => {
  do_not_optimize(candidates.openScan().update(listed));
});

const folder = await mkdtemp(join(tmpdir(), "tvix-bench-"));
try {
  await using packs = await PackBlobService.open({ path: folder });
  const rng = seeded(4);
  const stored = await packs.putMany(Array.from({ length: 10_000 }, () => text(rng, 64)));
  const absent = stored.map(({ bytes }) => blake3Digest(bytes));
  let next = 0;
  bench("pack store, has, of 10,000", async () => {
    do_not_optimize(await packs.has(stored[next++ % stored.length]!));
  });
  bench("pack store, has, absent", async () => {
    do_not_optimize(await packs.has(absent[next++ % absent.length]!));
  });
  bench("pack store, hasMany 1,000 of 10,000", async () => {
    do_not_optimize(await packs.hasMany(stored.slice(0, 1000)));
  });
  await run({ filter: new RegExp(process.argv[2] ?? "") });
} finally {
  await rm(folder, { recursive: true, force: true });
}
