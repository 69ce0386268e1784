import { type AbortOptions, type Node, SingleFlight } from "@tvix/castore";
import { LRUCache } from "lru-cache";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Options of {@link CachingNarCalculationService}. */
export interface CachingNarCalculationOptions {
  /** What computes. */
  inner: NarCalculationService;
  /** How many NARs are remembered, some 200 bytes each. Default: 65,536. */
  capacity?: number;
}

/**
 * Remembers the size and digest of the NARs that were asked for last, by root node, which they follow from. Who asks
 * for the same while it is computed, waits for that; it is given up when all of them were cancelled.
 */
export class CachingNarCalculationService implements NarCalculationService {
  readonly #inner: NarCalculationService;
  readonly #known: LRUCache<string, CalculatedNar>;
  readonly #running = new SingleFlight<CalculatedNar>();

  constructor({ inner, capacity = 65_536 }: CachingNarCalculationOptions) {
    this.#inner = inner;
    this.#known = new LRUCache({ max: capacity });
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

/** What callers may change without changing it for others. */
function copyOf({ narSize, narSha256 }: CalculatedNar): CalculatedNar {
  return { narSize, narSha256: narSha256.slice() };
}

/** Everything that a NAR follows from: also what a node states wrongly, which makes computing fail. */
function keyOf(node: Exclude<Node, { type: "symlink" }>): string {
  const kind = node.type === "file" && node.executable ? "executable" : node.type;
  return `${kind} ${node.size} ${node.digest.hex}`;
}
