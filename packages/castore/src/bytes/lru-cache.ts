import { LRUCache } from "lru-cache";

/**
 * Returns an empty cache that evicts its least recently used entry when there are more than `maxEntries`. It takes
 * memory as it fills: with the option `max`, `LRUCache` would allocate room for all of them at once.
 *
 * @param ttlMs how long an entry is kept, in milliseconds. Default: without end
 */
export function lruCache<K extends object | string, V extends object | string | true>(
  maxEntries: number,
  { ttlMs = 0 }: { ttlMs?: number } = {},
): LRUCache<K, V> {
  return new LRUCache<K, V>({ maxSize: maxEntries, sizeCalculation: () => 1, ttl: ttlMs });
}
