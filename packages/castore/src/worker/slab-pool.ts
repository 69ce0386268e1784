import type { AbortOptions } from "../bytes/abort-options.ts";
import { ByteBudget } from "../bytes/byte-budget.ts";

/** Slabs that nobody uses, by their length. Whoever needs one of that length takes it. */
const spare = new Map<number, SharedArrayBuffer[]>();

/**
 * Buffers that threads share, a bounded number of them. They are used again and again, also by other pools: the garbage
 * collector would free shared ones much too late.
 */
export class SlabPool {
  readonly #slabBytes: number;
  readonly #maxSpare: number;
  readonly #spare: SharedArrayBuffer[];
  /** One for each slab that may be in use. */
  readonly #budget: ByteBudget;

  /**
   * @param slabBytes length of a slab
   * @param maxSlabs how many there are at most
   * @param maxSpare how many are kept that nobody uses: as many as pools of that length use together. Default: `maxSlabs`
   */
  constructor(slabBytes: number, maxSlabs: number, maxSpare: number = maxSlabs) {
    this.#slabBytes = slabBytes;
    this.#maxSpare = maxSpare;
    this.#spare = spare.get(slabBytes) ?? [];
    spare.set(slabBytes, this.#spare);
    this.#budget = new ByteBudget(maxSlabs);
  }

  /**
   * Resolves with a slab when one is free, the first come first. What is in it means nothing.
   *
   * @param options.isNext none of the others is given back before this one: it does not wait for them. Default: false
   */
  async take(options?: AbortOptions & { isNext?: boolean }): Promise<SharedArrayBuffer> {
    if (options?.isNext) this.#budget.takeNow(1);
    else await this.#budget.take(1, options);
    return this.#spare.pop() ?? new SharedArrayBuffer(this.#slabBytes);
  }

  /** Returns a slab if one is free; for who holds others meanwhile, and so must not wait for those who do the same. */
  tryTake(): SharedArrayBuffer | undefined {
    if (!this.#budget.tryTake(1)) return undefined;
    return this.#spare.pop() ?? new SharedArrayBuffer(this.#slabBytes);
  }

  /** Gives back a slab once some work has ended, whatever its outcome, and the function that this returns was called. */
  giveAfter(slab: SharedArrayBuffer, work: Promise<unknown>): () => void {
    const { promise: released, resolve } = Promise.withResolvers<void>();
    void Promise.allSettled([work, released]).then(() => this.give(slab));
    return resolve;
  }

  /** Gives back a slab that is not used any more. */
  give(slab: SharedArrayBuffer): void {
    if (this.#spare.length < this.#maxSpare) this.#spare.push(slab);
    this.#budget.release(1);
  }
}
