/**
 * Keeps a folder on a disk: file contents in packs, directories in SQLite.
 *
 *   node examples/disk.ts FOLDER /var/lib/store
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, store] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`pack://${store}/blobs?zstd_level=3`);
await using directoryService = await openDirectoryService(`sqlite://${store}/directories.sqlite`);
await roundTrip(folder, blobService, directoryService);
