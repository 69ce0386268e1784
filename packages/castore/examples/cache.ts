/**
 * Stores a folder in an origin and in a local cache in front of it, and reads it back.
 *
 *   node examples/cache.ts FOLDER /var/cache/store grpc+http://localhost:8000
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, near, far] = process.argv.slice(2) as [string, string, string];
const query = (near: string) => new URLSearchParams({ near, far });
await using blobService = await openBlobService(`combined://?${query(`pack://${near}/blobs`)}`);
await using directoryService = await openDirectoryService(
  `cache://?${query(`sqlite://${near}/directories.sqlite`)}`,
);
await roundTrip(folder, blobService, directoryService);
