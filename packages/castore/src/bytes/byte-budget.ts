import type { AbortOptions } from "./abort-options.ts";

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

/** Bounds how many bytes are in flight. First come, first served. */
export class ByteBudget {
  readonly #limit: number;
  #taken = 0;
  readonly #waiters: Waiter[] = [];

  /** @param limit how many bytes may be taken at the same time */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Takes bytes, and resolves when there is room for them. More than the limit are admitted alone.
   */
  async take(bytes: number, options?: AbortOptions): Promise<void> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    if (this.#waiters.length === 0 && this.#fits(bytes)) {
      this.#taken += bytes;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        bytes,
        admit: () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        },
      };
      const abort = () => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        this.#admitWaiters();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Gives bytes back that were taken. */
  release(bytes: number): void {
    this.#taken -= bytes;
    this.#admitWaiters();
  }

  #fits(bytes: number): boolean {
    return this.#taken === 0 || this.#taken + bytes <= this.#limit;
  }

  #admitWaiters(): void {
    for (let next = this.#waiters[0]; next !== undefined && this.#fits(next.bytes); ) {
      this.#taken += next.bytes;
      this.#waiters.shift();
      next.admit();
      next = this.#waiters[0];
    }
  }
}
