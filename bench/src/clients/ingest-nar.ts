/**
 * Stores what is in a NAR.
 *
 *   ingest-nar.ts NAR BLOBS DIRECTORIES
 */
import { createReadStream } from "node:fs";
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { ingestNar } from "@tvix/store";
import { reportWork, secondsOf } from "./report-work.ts";

/** How much is read at a time, in bytes. */
const READ_SIZE = 256 * 1024;

const [nar, blobs, directories] = process.argv.slice(2) as [string, string, string];
await using blobService = await openBlobService(blobs);
await using directoryService = await openDirectoryService(directories);

let bytes = 0;
const seconds = await secondsOf(async () => {
  const stream = createReadStream(nar, { highWaterMark: READ_SIZE });
  const { narSize } = await ingestNar(stream, { blobService, directoryService });
  bytes = Number(narSize);
});
reportWork({ seconds, bytes });
