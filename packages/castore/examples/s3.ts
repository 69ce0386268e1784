/**
 * Keeps a folder in S3. Needs `@aws-sdk/client-s3`, which looks for credentials as always: in
 * `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, in `~/.aws`, ...
 *
 *   node examples/s3.ts FOLDER 's3://bucket/store?region=eu-central-1'
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, bucket] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`objectstore+${bucket}`);
await using directoryService = await openDirectoryService(`objectstore+${bucket}`);
await roundTrip(folder, blobService, directoryService);
