/** What the threads of the pool can do. Each takes one argument, which is copied or moved to them. */
export { compressRecords } from "../blobservice/pack/compress-records.ts";
export { readChunks } from "../blobservice/pack/read-chunks.ts";
export { readFiles } from "../import/read-files.ts";
