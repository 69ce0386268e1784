/**
 * Asks a blob service for one blob again and again, one call at a time, while 16 others of another process are put.
 *
 *   stat-beside-uploads.ts ADDRESS [upload]
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { openBlobService, putBlob } from "@tvix/castore";
import { library } from "../trees/content.ts";
import { seeded } from "../trees/random.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const UPLOADS = 16;
const UPLOAD_BYTES = 16_000_000;

/** How many calls are made before the uploads begin, so that V8 has compiled what they run. */
const WARM_UP = 200;

const [address, isUploading] = process.argv.slice(2) as [string, string | undefined];
await using service = await openBlobService(address);
if (isUploading) {
  const blobs = Array.from({ length: UPLOADS }, (_, i) => library(seeded(6000 + i), UPLOAD_BYTES));
  process.send!("begins");
  await Promise.all(blobs.map((blob) => putBlob(service, blob)));
  process.disconnect();
} else {
  const digest = await putBlob(service, Buffer.from("hello"));
  for (let i = 0; i < WARM_UP; i++) await service.has(digest);
  const uploads = fork(process.argv[1]!, [address, "upload"]);
  await once(uploads, "message");
  const taken: number[] = [];
  const seconds = await secondsOf(async () => {
    while (uploads.connected)
      taken.push(await secondsOf(async () => void (await service.has(digest))));
  });
  const [code] = await once(uploads, "exit");
  if (code !== 0) throw new Error(`Cannot use this run: the uploads ended with ${code}`);
  taken.sort((a, b) => a - b);
  reportWork({
    seconds,
    count: taken.length,
    percentile99: taken[Math.floor(0.99 * taken.length)],
  });
}
