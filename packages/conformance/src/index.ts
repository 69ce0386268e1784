export {
  type BlobServiceCapabilities,
  type BlobServiceSuiteOptions,
  blobServiceSuite,
} from "./blob-service.ts";
export { type DirectoryServiceSuiteOptions, directoryServiceSuite } from "./directory-service.ts";
export { type PathInfoServiceSuiteOptions, pathInfoServiceSuite } from "./path-info-service.ts";
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
