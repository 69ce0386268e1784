export { openPathInfoService, PATH_INFO_SERVICES, STORE_REGISTRIES } from "./composition.ts";
export { decodePathInfo, encodePathInfo, pathInfoFromProto, pathInfoToProto } from "./convert.ts";
export { type FindPathsOptions, findPaths, type PathLookup } from "./copy/find-paths.ts";
export { PathCopier } from "./copy/path-copier.ts";
export type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
  StorePathSource,
} from "./copy/store-path-source.ts";
export { StoredPaths } from "./copy/stored-paths.ts";
export { type DiskUsage, DiskUsageMeter } from "./disk-usage.ts";
export { StoreError } from "./errors.ts";
export { importArchive, importNar, importPath } from "./import.ts";
export {
  type CachingNarCalculationOptions,
  CachingNarCalculationService,
} from "./nar/caching-nar-calculation-service.ts";
export {
  type FramedNar,
  type FramedNarSources,
  isFrameSource,
  measureFramedNar,
  readFramedNar,
} from "./nar/framed-nar.ts";
export { type IngestedNar, type IngestNarOptions, ingestNar } from "./nar/ingest.ts";
export { listNar, type NarListing, type NarListingNode } from "./nar/listing.ts";
export { measureNar } from "./nar/measure.ts";
export type { CalculatedNar, NarCalculationService } from "./nar/nar-calculation-service.ts";
export { type NarEvent, readNar } from "./nar/reader.ts";
export { type NarSources, renderNar } from "./nar/renderer.ts";
export { RenderingNarCalculationService } from "./nar/rendering-nar-calculation-service.ts";
export { type NarRange, SeekableNar } from "./nar/seekable.ts";
export { SharedTrees } from "./nar/shared-trees.ts";
export { readSmallNar, type SmallNar, storeSmallNar } from "./nar/small-nar.ts";
export { type TreePlace, type TreeStep, walkTree } from "./nar/walk-tree.ts";
export { NarWriter } from "./nar/writer.ts";
export { narInfoFromPathInfo, pathInfoFromNarInfo } from "./narinfo-convert.ts";
export {
  type BuildPathOptions,
  buildCaPath,
  buildOutputPath,
  buildTextPath,
  placeholder,
} from "./nix/build-path.ts";
export {
  type ContentAddress,
  formatContentAddress,
  parseContentAddress,
} from "./nix/content-address.ts";
export { NarInfo, type NarInfoFields } from "./nix/narinfo.ts";
export {
  formatNixHash,
  type HashAlgorithm,
  type HashForm,
  type NixHash,
  nixHash,
  parseAnyNixHash,
  parseNixHash,
} from "./nix/nix-hash.ts";
export { decodeNixbase32, encodeNixbase32 } from "./nix/nixbase32.ts";
export { ReferenceCandidates, type ReferenceScan } from "./nix/reference-scanner.ts";
export {
  fingerprint,
  formatSignature,
  parseSignature,
  type Signable,
  type Signature,
  SigningKey,
  signature,
  splitKeys,
  VerifyingKey,
} from "./nix/signature.ts";
export { STORE_DIR, StorePath } from "./nix/store-path.ts";
export {
  formatObjectName,
  type ObjectName,
  parseObjectName,
  type RootName,
} from "./object-name.ts";
export type { PathInfo } from "./pathinfo.ts";
export { CachePathInfoService } from "./pathinfoservice/cache.ts";
export { LruPathInfoService, MemoryPathInfoService } from "./pathinfoservice/memory.ts";
export { MAX_SIGNATURE_BYTES } from "./pathinfoservice/merge-signatures.ts";
export {
  eachOf as eachPathInfoOf,
  PathInfoPage,
  type ValidPathInfo,
  validated as validPathInfo,
} from "./pathinfoservice/path-info-page.ts";
export type { ListPathInfosOptions, PathInfoService } from "./pathinfoservice/path-info-service.ts";
export {
  readSigningKey,
  type SigningOptions,
  SigningPathInfoService,
} from "./pathinfoservice/signing.ts";
export { type SqlitePathInfoOptions, SqlitePathInfoService } from "./pathinfoservice/sqlite.ts";
export { type RestoreOptions, type RestoreProgress, restoreTree } from "./restore/restore-tree.ts";
export {
  findObject,
  findPathInfos,
  hashPartOfName,
  type ObjectSources,
  type StoreObject,
} from "./store-object.ts";
