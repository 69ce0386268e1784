import type { Attributes, BatchObservableResult, Meter, Observable } from "@opentelemetry/api";
import type { NamedStatistics, StoreEvent, StoreStatistics } from "@tvix/castore";

/** A number of a store, and how it is told. */
interface StoreMetric {
  readonly key: keyof StoreStatistics;
  readonly name: string;
  readonly description: string;
  readonly unit?: string;
  readonly isCount: boolean;
}

const METRICS: readonly StoreMetric[] = [
  {
    key: "chunksOffered",
    name: "tvix_store_chunks_offered",
    description: "Chunks that came in, stored already or not",
    isCount: true,
  },
  {
    key: "chunksAdded",
    name: "tvix_store_chunks_added",
    description: "Chunks that came in and were not stored yet",
    isCount: true,
  },
  {
    key: "bytesOffered",
    name: "tvix_store_offered_bytes",
    description: "Contents of the chunks that came in",
    unit: "By",
    isCount: true,
  },
  {
    key: "bytesAdded",
    name: "tvix_store_added_bytes",
    description: "Contents of the chunks that were not stored yet, before compression",
    unit: "By",
    isCount: true,
  },
  {
    key: "lookups",
    name: "tvix_store_lookups",
    description: "Blobs and chunks that clients looked up, as they do before an upload",
    isCount: true,
  },
  {
    key: "lookupHits",
    name: "tvix_store_lookup_hits",
    description: "Those of them that were stored, so that nobody sent them",
    isCount: true,
  },
  {
    key: "cacheHits",
    name: "tvix_store_cache_hits",
    description: "Items that the local store of a cache had",
    isCount: true,
  },
  {
    key: "cacheMisses",
    name: "tvix_store_cache_misses",
    description: "Items for which a cache asked its origin",
    isCount: true,
  },
  {
    key: "sizeBytes",
    name: "tvix_store_size_bytes",
    description: "Length of the files of a store",
    unit: "By",
    isCount: false,
  },
  {
    key: "freeBytes",
    name: "tvix_store_free_bytes",
    description: "Room that the file system of a store has left",
    unit: "By",
    isCount: false,
  },
];

/**
 * Takes metrics of stores, by their names.
 *
 * @param statistics is asked whenever metrics are read
 */
export function observeStores(
  meter: Meter,
  statistics: () => Promise<readonly NamedStatistics[]>,
): void {
  const observables = METRICS.map(({ name, description, unit, isCount }): Observable => {
    const options = { description, ...(unit !== undefined && { unit }) };
    return isCount
      ? meter.createObservableCounter(name, options)
      : meter.createObservableGauge(name, options);
  });
  const observe = async (result: BatchObservableResult) => {
    for (const store of addedUp(await statistics())) {
      for (const [i, { key }] of METRICS.entries()) {
        const value = store.numbers[key];
        if (value !== undefined) result.observe(observables[i]!, value, store.attributes);
      }
    }
  };
  meter.addBatchObservableCallback(observe, observables);
}

/** Returns what counts the events of stores. */
export function countStoreEvents(meter: Meter): (event: StoreEvent) => void {
  const events = meter.createCounter("tvix_store_events", {
    description: "Damage that was met (corrupt) and failures that failed no call (warning)",
  });
  return ({ type, kind, store }) => events.add(1, { type, kind, store });
}

interface Store {
  readonly attributes: Attributes;
  readonly numbers: StoreStatistics;
}

/** Adds up stores of the same name, such as two of the same address. */
function addedUp(all: readonly NamedStatistics[]): Iterable<Store> {
  const stores = new Map<string, Store>();
  for (const { kind, store, ...numbers } of all) {
    const key = `${kind} ${store}`;
    const found = stores.get(key);
    if (found === undefined) {
      stores.set(key, { attributes: { kind, store }, numbers });
      continue;
    }
    for (const name of Object.keys(numbers) as (keyof StoreStatistics)[]) {
      found.numbers[name] = (found.numbers[name] ?? 0) + numbers[name]!;
    }
  }
  return stores.values();
}
