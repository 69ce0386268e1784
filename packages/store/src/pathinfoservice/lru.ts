import { LRUCache } from "lru-cache";
import { MemoryPathInfoService } from "./memory.ts";

/** Keeps the PathInfos in memory that were put or asked for last. What is forgotten is gone: it is a cache. */
export class LruPathInfoService extends MemoryPathInfoService {
  /** @param options.capacity how many PathInfos are kept, at least 1 */
  constructor({ capacity }: { capacity: number }) {
    super(new LRUCache({ max: capacity }));
  }
}
