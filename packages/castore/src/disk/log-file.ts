import { closeSync, fdatasync, openSync } from "node:fs";
import { promisify } from "node:util";

const syncData = promisify(fdatasync);

/** Syncs the write-ahead log of an open database, for commits that did not wait for the disk. */
export class LogFile implements AsyncDisposable {
  readonly #fd: number;
  #running: Promise<void> | undefined;
  /** The sync that begins when the one that runs has ended. */
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#fd = openSync(path, "r");
  }

  /** Resolves when all that was committed before the call is durable: one sync for all who wait. */
  sync(): Promise<void> {
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

  #begin(): Promise<void> {
    this.#next = undefined;
    const running = syncData(this.#fd).finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
