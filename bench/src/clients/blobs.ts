/**
 * Puts blobs to a blob service, or reads them back.
 *
 *   blobs.ts put|read ADDRESS DIGESTS SOURCE SIZE COUNT AT_A_TIME
 *
 * SOURCE is a file of which each blob is a part; DIGESTS is one that `put` writes and `read` reads.
 */
import { open, readFile, writeFile } from "node:fs/promises";
import { B3Digest, openBlobService } from "@tvix/castore";
import pLimit from "p-limit";
import { countBuffers } from "./count-buffers.ts";
import { reportWork, secondsOf } from "./report-work.ts";

/** How much is given to a writer at a time, in bytes. */
const WRITE_SIZE = 1024 * 1024;

const [operation, address, digestFile, source, ...numbers] = process.argv.slice(2) as [
  "put" | "read",
  string,
  string,
  string,
  ...string[],
];
const [size, count, atATime] = numbers.map(Number) as [number, number, number];
await using service = await openBlobService(address);
countBuffers();
const limit = pLimit(atATime);
const bytes = size * count;

if (operation === "put") {
  const data = await readStart(source, bytes); // before the clock starts
  let digests: readonly B3Digest[] = [];
  const seconds = await secondsOf(async () => {
    const blobs = Array.from({ length: count }, (_, i) => data.subarray(i * size, (i + 1) * size));
    digests = await Promise.all(blobs.map((blob) => limit(() => put(blob))));
  });
  await writeFile(digestFile, digests.map(({ hex }) => hex).join("\n"));
  reportWork({ seconds, bytes, count });
} else {
  const digests = (await readFile(digestFile, "utf8"))
    .split("\n")
    .map((hex) => B3Digest.fromBytes(Buffer.from(hex, "hex")));
  let read = 0;
  const seconds = await secondsOf(async () => {
    const lengths = await Promise.all(digests.map((digest) => limit(() => readLength(digest))));
    read = lengths.reduce((sum, length) => sum + length, 0);
  });
  if (read !== bytes) throw new Error(`Cannot use this run: read ${read} bytes, expected ${bytes}`);
  reportWork({ seconds, bytes, count });
}

async function put(blob: Uint8Array): Promise<B3Digest> {
  await using writer = service.openWriter();
  for (let at = 0; at < blob.length; at += WRITE_SIZE) {
    await writer.write(blob.subarray(at, at + WRITE_SIZE));
  }
  return await writer.close();
}

async function readLength(digest: B3Digest): Promise<number> {
  let length = 0;
  for await (const data of (await service.read(digest)) ?? []) length += data.length;
  return length;
}

async function readStart(path: string, length: number): Promise<Uint8Array> {
  const data = new Uint8Array(length);
  await using file = await open(path);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(data, at, length - at);
    if (bytesRead === 0) throw new Error(`Cannot use "${path}": expected at least ${length} bytes`);
    at += bytesRead;
  }
  return data;
}
