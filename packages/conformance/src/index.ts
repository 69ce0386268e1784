export { type BlobServiceCapabilities, blobServiceSuite } from "./blob-service.ts";
export { directoryServiceSuite } from "./directory-service.ts";
export { pathInfoServiceSuite } from "./path-info-service.ts";
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
