/**
 * Keeps a folder in Azure Blob Storage. Needs `@azure/storage-blob` and `@azure/identity`, which look for credentials in
 * `AZURE_STORAGE_CONNECTION_STRING`, or as always.
 *
 *   node examples/azure.ts FOLDER 'az://container/store?account_name=mine'
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, container] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`objectstore+${container}`);
await using directoryService = await openDirectoryService(`objectstore+${container}`);
await roundTrip(folder, blobService, directoryService);
