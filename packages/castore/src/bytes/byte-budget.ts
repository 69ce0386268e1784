import type { AbortOptions } from "./abort-options.ts";

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

/** Bounds the number of bytes in flight. Waiters are admitted in order. */
export class ByteBudget {
  readonly #limit: number;
  #taken = 0;
  readonly #waiters: Waiter[] = [];

  /** @param limit maximum number of bytes in flight */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Takes bytes from the budget, once there is room. A request above the limit is admitted when nothing else is in
   * flight.
   */
  async take(bytes: number, options?: AbortOptions): Promise<void> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    if (this.tryTake(bytes)) return;
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

  /** Takes bytes if there is room for them and nobody waits. Returns whether it did. */
  tryTake(bytes: number): boolean {
    if (this.#waiters.length > 0 || !this.#fits(bytes)) return false;
    this.#taken += bytes;
    return true;
  }

  /** Takes bytes at once, beyond the limit if need be: for work without which no bytes are given back. */
  takeNow(bytes: number): void {
    this.#taken += bytes;
  }

  /** Number of bytes in flight. */
  get taken(): number {
    return this.#taken;
  }

  /** Returns taken bytes to the budget. */
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
