/**
 * Keeps a folder in memory, which is forgotten at the end.
 *
 *   node examples/memory.ts FOLDER
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder] = process.argv.slice(2) as [string];
await using blobService = await openBlobService("memory://");
await using directoryService = await openDirectoryService("memory://");
await roundTrip(folder, blobService, directoryService);
