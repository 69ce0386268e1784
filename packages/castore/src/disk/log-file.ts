import { closeSync, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { promisify } from "node:util";

const syncData = promisify(fdatasync);

/**
 * A sync is done in the calling thread: to wake another takes as long, where the disk is fast. After one that took longer
 * than so many milliseconds, so many are left to other threads.
 */
const SLOW_SYNC_MS = 2;
const SYNCS_AFTER_SLOW = 64;

/** Syncs the write-ahead log of an open database, for commits that did not wait for the disk. */
export class LogFile implements AsyncDisposable {
  readonly #fd: number;
  /** How many of the next syncs are left to other threads. */
  #elsewhere = 0;
  #running: Promise<void> | undefined;
  /** The sync that begins when the one that runs has ended. */
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#fd = openSync(path, "r");
  }

  /** Resolves when all that was committed before the call is durable: one sync for all who wait. */
  async sync(): Promise<void> {
    if (this.#running === undefined && this.#elsewhere === 0) return this.#syncHere();
    if (this.#running === undefined) return this.#begin();
    this.#next ??= this.#running.catch(() => undefined).then(() => this.#begin());
    return this.#next;
  }

  /** Waits for syncs that have begun. */
  async [Symbol.asyncDispose](): Promise<void> {
    const last = () => this.#next ?? this.#running;
    for (let sync = last(); sync; sync = last()) await sync.catch(() => undefined);
    closeSync(this.#fd);
  }

  #syncHere(): void {
    const startMs = performance.now();
    try {
      fdatasyncSync(this.#fd);
    } finally {
      if (performance.now() - startMs > SLOW_SYNC_MS) this.#elsewhere = SYNCS_AFTER_SLOW;
    }
  }

  #begin(): Promise<void> {
    this.#next = undefined;
    this.#elsewhere = Math.max(this.#elsewhere - 1, 0);
    const running = syncData(this.#fd).finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
