/**
 * Keeps a folder in a daemon.
 *
 *   node examples/grpc.ts FOLDER grpc+http://localhost:8000
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, daemon] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(daemon);
await using directoryService = await openDirectoryService(daemon);
await roundTrip(folder, blobService, directoryService);
