export {
  type BlobServiceCapabilities,
  type BlobServiceSuiteOptions,
  blobServiceSuite,
} from "./blob-service.ts";
export { chunksOf } from "./blob-support.ts";
export { type BlobTiersSuiteOptions, blobTiersSuite } from "./blob-tiers.ts";
export { type DirectoryServiceSuiteOptions, directoryServiceSuite } from "./directory-service.ts";
export { type DirectoryTiersSuiteOptions, directoryTiersSuite } from "./directory-tiers.ts";
export type { Faults } from "./fault-plan.ts";
export { FaultyBlobService } from "./faulty-blob-service.ts";
export { FaultyDirectoryService } from "./faulty-directory-service.ts";
export { FaultyObjectStore } from "./faulty-object-store.ts";
export { type ObjectStoreSuiteOptions, objectStoreSuite } from "./object-store.ts";
export { type PathInfoServiceSuiteOptions, pathInfoServiceSuite } from "./path-info-service.ts";
export { RepeatingBlobService } from "./repeating-blob-service.ts";
export { RepeatingDirectoryService } from "./repeating-directory-service.ts";
export { describeWithTools, type RunningServer, startServer } from "./tools.ts";
export {
  type FileContent,
  fileContent,
  readTreeExpected,
  readTreeSpecs,
  seededBytes,
  type TreeEntry,
  type TreeExpected,
  type TreeSpec,
  writeTree,
} from "./trees.ts";
