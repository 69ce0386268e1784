/**
 * Keeps a folder as objects that are files, in the layout that buckets have.
 *
 *   node examples/files.ts FOLDER /var/lib/store
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, store] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`objectstore+file://${store}`);
await using directoryService = await openDirectoryService(`objectstore+file://${store}`);
await roundTrip(folder, blobService, directoryService);
