/**
 * Keeps a folder in Google Cloud Storage. Needs `@google-cloud/storage`, which looks for credentials as always: in
 * `GOOGLE_APPLICATION_CREDENTIALS`, of the machine that it runs on, ...
 *
 *   node examples/google-cloud.ts FOLDER gs://bucket/store
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, bucket] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`objectstore+${bucket}`);
await using directoryService = await openDirectoryService(`objectstore+${bucket}`);
await roundTrip(folder, blobService, directoryService);
