import { setTimeout as sleep } from "node:timers/promises";
import { CastoreError } from "@tvix/castore";

/** How often what goes wrong, as shares of all calls from 0 to 1. Default: never. */
export interface Faults {
  /** Calls that fail with `unavailable`, some of those that store something after they have. */
  readonly fail?: number;
  /** Calls that take some milliseconds longer. */
  readonly delay?: number;
  /** Contents that end early. */
  readonly truncate?: number;
  /** Contents that are others: of bytes, a bit is. */
  readonly corrupt?: number;
  /** Whether contents under a key are spared from `truncate` and `corrupt`; of object stores only. Default: none are. */
  readonly spares?: (key: string) => boolean;
  /** How many times something goes wrong in all, delays left out. Default: any number. */
  readonly atMost?: number;
  /** How many times nothing goes wrong before, where something would. Default: 0. */
  readonly after?: number;
}

/** What goes wrong next: the same for the same seed and the same calls. */
export class FaultPlan {
  readonly #faults: Faults;
  readonly #name: string;
  #state: number;
  #left: number;
  #toSpare: number;
  #happened = 0;

  /** @param name of what cannot be reached, for messages */
  constructor(faults: Faults, seed: number, name: string) {
    this.#faults = faults;
    this.#name = name;
    this.#state = seed;
    this.#left = faults.atMost ?? Number.POSITIVE_INFINITY;
    this.#toSpare = faults.after ?? 0;
  }

  /** How many times something went wrong so far, delays left out. */
  get happened(): number {
    return this.#happened;
  }

  /** Takes its time, or fails with `unavailable`. */
  async call(): Promise<void> {
    if (this.#random() < (this.#faults.delay ?? 0)) await sleep(this.#random() * 5);
    if (this.#happens(this.#faults.fail)) {
      throw new CastoreError("unavailable", `Cannot reach "${this.#name}": it fails on purpose`);
    }
  }

  /** Lets nothing go wrong from now on. */
  heal(): void {
    this.#left = 0;
  }

  truncates(): boolean {
    return this.#happens(this.#faults.truncate);
  }

  corrupts(): boolean {
    return this.#happens(this.#faults.corrupt);
  }

  /** The same bytes, fewer of them, or others, in memory of their own. */
  damaged(contents: Uint8Array): Uint8Array {
    const data = Buffer.from(contents);
    const end = this.truncates() ? Math.floor(this.#random() * data.length) : data.length;
    if (end > 0 && this.corrupts()) {
      const at = Math.floor(this.#random() * end);
      data[at] = data[at]! ^ (1 << Math.floor(this.#random() * 8));
    }
    return data.subarray(0, end);
  }

  #happens(share = 0): boolean {
    if (this.#random() >= share || this.#left === 0) return false;
    if (this.#toSpare > 0) {
      this.#toSpare -= 1;
      return false;
    }
    this.#left -= 1;
    this.#happened += 1;
    return true;
  }

  #random(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state / 2 ** 32;
  }
}
