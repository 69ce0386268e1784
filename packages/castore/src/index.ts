export { proxyFor } from "./address/proxy.ts";
export { refusalOf } from "./address/schema-refusal.ts";
export {
  parseServiceAddress,
  type ServiceAddress,
  withKeys,
} from "./address/service-address.ts";
export { TokenFile } from "./address/token-file.ts";
export { BlobPlaces } from "./blobservice/blob-places.ts";
export type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FilledBuffer,
  FrameBatch,
  PutListOptions,
  ReadOptions,
  StoredBlob,
} from "./blobservice/blob-service.ts";
export { ChunkList, ChunkListBuilder, type ChunkMeta } from "./blobservice/chunk-list.ts";
export {
  ChunkedBlobReader,
  type FetchChunk,
  type ReadChunkedOptions,
  readChunked,
} from "./blobservice/chunked-reader.ts";
export {
  ChunkedBlobWriter,
  type ChunkedBlobWriterOptions,
  type ChunkSink,
} from "./blobservice/chunked-writer.ts";
export { CombinedBlobService } from "./blobservice/combined.ts";
export { framesByCompressing, putFramesByContents } from "./blobservice/frames.ts";
export { MemoryBlobService } from "./blobservice/memory.ts";
export {
  type ObjectStoreBlobOptions,
  ObjectStoreBlobService,
} from "./blobservice/objectstore/object-store-blob-service.ts";
export { statOneByOne } from "./blobservice/one-by-one.ts";
export { PackBlobService, type PackOptions } from "./blobservice/pack/pack-blob-service.ts";
export { putBlob } from "./blobservice/put-blob.ts";
export { putListByReading } from "./blobservice/put-list.ts";
export { readFileNode } from "./blobservice/read-file-node.ts";
export { readManyInto } from "./blobservice/read-many-into.ts";
export { storedSizesOf } from "./blobservice/stored-sizes.ts";
export {
  type OutboardOptions,
  type OutboardSource,
  outboardOf,
  verifiedRange,
} from "./blobservice/verified-range.ts";
export { unlessAborted } from "./bytes/abort.ts";
export type { AbortOptions } from "./bytes/abort-options.ts";
export { ByteBudget } from "./bytes/byte-budget.ts";
export { ByteReader } from "./bytes/byte-reader.ts";
export {
  collectAtMost,
  collectBytes,
  compareBytes,
  concatBytes,
  copyBytes,
  equalBytes,
  quoteBytes,
} from "./bytes/byte-string.ts";
export { freeMemory } from "./bytes/free-memory.ts";
export { lruCache } from "./bytes/lru-cache.ts";
export { mapSome } from "./bytes/map-some.ts";
export { mapInParallel } from "./bytes/parallel.ts";
export { SingleFlight } from "./bytes/single-flight.ts";
export { instantiateWasm } from "./bytes/wasm.ts";
export {
  CACHE_MODES,
  type CacheMode,
  type CacheOptions,
  OriginCache,
} from "./cache/origin-cache.ts";
export {
  Composition,
  type CompositionOptions,
  type NamedStatistics,
  type StoreEvent,
  warnOfStoreEvent,
} from "./composition/composition.ts";
export {
  type OpenOptions,
  openAddress,
  openBlobService,
  openDirectoryService,
} from "./composition/from-addr.ts";
export { type ContractPlan, instrument, type MethodPlan } from "./composition/instrument.ts";
export type { NamedServices, ServiceConfig } from "./composition/opener.ts";
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
  cacheType,
  grpcType,
  keysOnly,
  memoryType,
  sqliteType,
} from "./composition/service-types.ts";
export type { Measure } from "./composition/store-calls.ts";
export {
  COMPRESSIONS,
  type Compression,
  compressionOf,
  type DecompressOptions,
  decompress,
  decompressSmall,
  detectCompression,
} from "./compression/decompress.ts";
export { rawFrame, rawFrameLength } from "./compression/zstd-frame.ts";
export { copyBlob } from "./copy/copy-blob.ts";
export {
  type ClosureServices,
  type CopyClosureOptions,
  type CopyProgress,
  copyClosure,
} from "./copy/copy-closure.ts";
export { CacheDirectoryService } from "./directoryservice/cache.ts";
export { compareTrees, type TreeDifference } from "./directoryservice/compare-trees.ts";
export type {
  DirectoryPutter,
  DirectoryService,
  RecursiveOptions,
} from "./directoryservice/directory-service.ts";
export {
  decodeDirectoryOf,
  type EncodedDirectory,
  encodeDirectory,
} from "./directoryservice/encoded-directory.ts";
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
export { showFilePath } from "./disk/file-error.ts";
export { makeFolder } from "./disk/make-folder.ts";
export { type Blake3, blake3 } from "./hash/blake3.ts";
export { blake3Digest } from "./hash/blake3-digest.ts";
export { Outboard, OutboardEncoder } from "./hash/outboard.ts";
export { type ImportArchiveOptions, importArchive } from "./import/archive.ts";
export type { MemberSelection } from "./import/archive-selection.ts";
export { ContentsStore, type IncomingFile, type StoreOutcome } from "./import/contents-store.ts";
export type { EntryFilter } from "./import/entry-filter.ts";
export { type ImportOptions, type ImportProgress, importPath } from "./import/fs.ts";
export { type IngestEntry, ingestEntries } from "./import/ingest-entries.ts";
export { stampTree } from "./import/stamp-tree.ts";
export { TreeStamp } from "./import/tree-stamp.ts";
export type { TreeVisitor } from "./import/tree-visitor.ts";
export {
  anonymousNodeFromProto,
  decodeDirectory,
  namedNodeFromProto,
  nodeToProto,
} from "./model/convert.ts";
export { B3Digest } from "./model/digest.ts";
export { Directory, type DirectoryEntry } from "./model/directory.ts";
export { CastoreError, type ErrorCode, hasCode } from "./model/errors.ts";
export { MAX_MESSAGE_BYTES } from "./model/limits.ts";
export { suggest } from "./model/nearest.ts";
export {
  type DirectoryNode,
  type FileNode,
  type Node,
  type SymlinkNode,
  type SymlinkTarget,
  symlinkTarget,
} from "./model/node.ts";
export { type PathComponent, pathComponent } from "./model/path.ts";
export type { Measured, StoreStatistics } from "./model/statistics.ts";
export { systemError, systemReason } from "./model/system-error.ts";
export { MemoryObjectStore } from "./objectstore/memory.ts";
export type {
  DeleteObjectOptions,
  GetObjectOptions,
  ListObjectsOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./objectstore/object-store.ts";
export { openObjectStore, whyObjectsReadOnly } from "./objectstore/open.ts";
export { ATTEMPTS, type RetryOptions, retryRequest } from "./policy/retry.ts";
export { laneLoad, limitLanes, shareLanes, startLanes } from "./worker/lanes.ts";
