/** Numbers that a store tells of itself, for metrics. Counts begin when it is opened. */
export interface StoreStatistics {
  /** Chunks of contents that came in, stored or not, and the length of their contents in bytes. */
  chunksOffered?: number;
  bytesOffered?: number;
  /** Those of them that were not stored yet. */
  chunksAdded?: number;
  bytesAdded?: number;
  /** Blobs and chunks that were looked up in many at once, as before an upload, and those that were there. */
  lookups?: number;
  lookupHits?: number;
  /** Items that a cache found in its local store, and those that it had to ask its origin for. */
  cacheHits?: number;
  cacheMisses?: number;
  /** Length of its files, in bytes. */
  sizeBytes?: number;
  /** Room that the file system has left for them, in bytes. */
  freeBytes?: number;
}

/** A service that tells of itself. */
export interface Measured {
  statistics(): Promise<StoreStatistics>;
}

/** Returns the statistics of a service; `undefined` for one that has none. */
export async function statisticsOf(service: object): Promise<StoreStatistics | undefined> {
  return "statistics" in service ? await (service as Measured).statistics() : undefined;
}
