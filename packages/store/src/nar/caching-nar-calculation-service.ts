import { type AbortOptions, lruCache, type Node, SingleFlight } from "@tvix/castore";
import type { LRUCache } from "lru-cache";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Options of {@link CachingNarCalculationService}. */
export interface CachingNarCalculationOptions {
  /** Computes NARs that are not in the cache. Not disposed of with the service. */
  inner: NarCalculationService;
  /** How many results are cached, about 200 bytes each. Default: 65,536. */
  capacity?: number;
}

/**
 * Caches size and digest of NARs by root node, in memory, and evicts the least recently used. Concurrent calls for one
 * root share one computation, which is cancelled when all of them are.
 */
export class CachingNarCalculationService implements NarCalculationService {
  readonly #inner: NarCalculationService;
  readonly #known: LRUCache<string, CalculatedNar>;
  readonly #running = new SingleFlight<CalculatedNar>();

  constructor({ inner, capacity = 65_536 }: CachingNarCalculationOptions) {
    this.#inner = inner;
    this.#known = lruCache(capacity);
  }

  async calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar> {
    options?.signal?.throwIfAborted();
    if (root.type === "symlink") return await this.#inner.calculateNar(root, options);
    const key = keyOf(root);
    const known = this.#known.get(key);
    if (known !== undefined) return copyOf(known);
    const calculate = async (signal: AbortSignal) => {
      const found = await this.#inner.calculateNar(root, { signal });
      this.#known.set(key, found);
      return found;
    };
    return copyOf(await this.#running.run(key, calculate, options));
  }
}

/** Copies a result, so that no caller changes it for others. */
function copyOf({ narSize, narSha256 }: CalculatedNar): CalculatedNar {
  return { narSize, narSha256: narSha256.slice() };
}

/** Returns all that a NAR follows from. A wrong size is part of it, as it makes the computation fail. */
function keyOf(node: Exclude<Node, { type: "symlink" }>): string {
  const kind = node.type === "file" && node.executable ? "executable" : node.type;
  return `${kind} ${node.size} ${node.digest.key}`;
}
