export { unlessAborted } from "./abort.ts";
export type {
  BlobService,
  BlobWriter,
  ChunkMeta,
  LentBlobs,
  ReadOptions,
} from "./blobservice/blob-service.ts";
export { type ReadChunkedOptions, readChunked } from "./blobservice/chunked-reader.ts";
export {
  ChunkedBlobWriter,
  type ChunkedBlobWriterOptions,
  type ChunkSink,
} from "./blobservice/chunked-writer.ts";
export { CombinedBlobService } from "./blobservice/combined.ts";
export { type CopyBlobOptions, copyBlob } from "./blobservice/copy-blob.ts";
export { MemoryBlobService } from "./blobservice/memory.ts";
export { type ObjectStoreBlobOptions, ObjectStoreBlobService } from "./blobservice/object-store.ts";
export { PackBlobService, type PackOptions } from "./blobservice/pack.ts";
export { putBlob } from "./blobservice/put-blob.ts";
export {
  type OutboardOptions,
  type OutboardSource,
  outboardOf,
  verifiedRange,
} from "./blobservice/verified-range.ts";
export { ByteReader } from "./byte-reader.ts";
export {
  collectAtMost,
  collectBytes,
  compareBytes,
  concatBytes,
  copyBytes,
  equalBytes,
  quoteBytes,
} from "./bytes.ts";
export {
  Composition,
  type CompositionOptions,
  type NamedServices,
  type StoreEvent,
} from "./composition/composition.ts";
export {
  type OpenOptions,
  openAddress,
  openBlobService,
  openDirectoryService,
} from "./composition/from-addr.ts";
export type { ServiceConfig } from "./composition/opener.ts";
export { BLOB_SERVICES, DIRECTORY_SERVICES } from "./composition/registries.ts";
export {
  type Registries,
  type ServiceContext,
  type ServiceKind,
  type ServiceKinds,
  type ServiceRegistry,
  type ServiceType,
  serviceType,
} from "./composition/registry.ts";
export {
  parseServiceAddress,
  type ServiceAddress,
  withKeys,
} from "./composition/service-address.ts";
export {
  grpcType,
  keysOnly,
  memoryType,
  sqliteType,
  tierType,
} from "./composition/service-types.ts";
export {
  anonymousNodeFromProto,
  decodeDirectory,
  decodeDirectoryOf,
  directoryFromProto,
  directoryToProto,
  type EncodedDirectory,
  encodeDirectory,
  namedNodeFromProto,
  nodeToProto,
} from "./convert.ts";
export {
  type ClosureServices,
  type CopyClosureOptions,
  type CopyProgress,
  copyClosure,
} from "./copy-closure.ts";
export { COMPRESSIONS, type Compression, decompress } from "./decompress.ts";
export { B3Digest } from "./digest.ts";
export { Directory, type DirectoryEntry } from "./directory.ts";
export { CacheDirectoryService } from "./directoryservice/cache.ts";
export type { DirectoryPutter, DirectoryService } from "./directoryservice/directory-service.ts";
export { MemoryDirectoryService } from "./directoryservice/memory.ts";
export {
  type ObjectStoreDirectoryOptions,
  ObjectStoreDirectoryService,
} from "./directoryservice/object-store.ts";
export {
  LeavesToRootValidator,
  RootToLeavesValidator,
} from "./directoryservice/order-validator.ts";
export { type SqliteDirectoryOptions, SqliteDirectoryService } from "./directoryservice/sqlite.ts";
export { StagedTree, type TreeStage } from "./directoryservice/staged-tree.ts";
export { descendTo, traverseDirectory } from "./directoryservice/traverse.ts";
export { type ClosureItem, walkClosure } from "./directoryservice/walk-closure.ts";
export { CastoreError, type ErrorCode } from "./errors.ts";
export { Outboard, OutboardEncoder } from "./hash/outboard.ts";
export { type ImportArchiveOptions, importArchive } from "./import/archive.ts";
export { ContentsStore, type IncomingFile, type StoreOutcome } from "./import/contents-store.ts";
export { type ImportOptions, type ImportProgress, importPath } from "./import/fs.ts";
export { type IngestEntry, ingestEntries } from "./import/ingest-entries.ts";
export type { TreeVisitor } from "./import/tree-visitor.ts";
export { MAX_MESSAGE_BYTES } from "./limits.ts";
export {
  type DirectoryNode,
  type FileNode,
  type Node,
  type SymlinkNode,
  type SymlinkTarget,
  symlinkTarget,
} from "./node.ts";
export { MemoryObjectStore } from "./object-store/memory.ts";
export type {
  GetObjectOptions,
  ListObjectsOptions,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store/object-store.ts";
export { openObjectStore } from "./object-store/open.ts";
export type { AbortOptions } from "./options.ts";
export { type PathComponent, pathComponent } from "./path.ts";
export { SharedFlight } from "./shared-flight.ts";
export { TIER_MODES, type TierMode, type TierOptions, Tiers } from "./tiers.ts";
export { type Measure, StoreCall, StoreCalls } from "./tracing/store-calls.ts";
export { instantiateWasm } from "./wasm.ts";
export { useThreads } from "./worker/pool.ts";
