import { closeSync, constants, fstatSync, statfsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { accessOf, EVENT, identityOf, watchedByUs } from "./open-descriptors.ts";

/** What a descriptor is wanted for: to count events, or to hold memory. */
type Kind = "event" | "memory";

/** Types of file systems that are in memory, as `linux/magic.h` numbers them: tmpfs and hugetlbfs. */
const MEMORY_SYSTEMS: ReadonlySet<number> = new Set([0x0102_1994, 0x9584_58f6]);
/** What descriptors of anonymous memory are of. This process makes none. */
const MEMORY = "/memfd:";

/** How often, and after which pause in milliseconds, descriptors are looked for that seem to be too many or too few. */
const ATTEMPTS = 10;
const PAUSE_MS = 20;
/** After which time an event that no event loop of this process waits for is none of its own, in milliseconds. */
const SETTLED_MS = 1_000;

/** Finds the descriptors that the other end of a socket has sent among all that this process has opened meanwhile. */
export class SentDescriptors {
  /** Descriptors that have come and belong to no message yet, with what they are of. */
  readonly #opened = new Map<number, string>();

  /** Takes what was opened when a message came. */
  add(opened: ReadonlyMap<number, string>): void {
    for (const [fd, target] of opened) this.#opened.set(fd, target);
  }

  /** Returns the descriptors of a message. They belong to the caller if they are as many as it should have. */
  async take(count: number, kind: Kind): Promise<number[]> {
    let found: number[] = [];
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (attempt > 0) await sleep(PAUSE_MS); // those of event loops that begin are told apart soon
      const ours = watchedByUs();
      const isWanted = kind === "event" ? isEvent : isFile;
      found = [...this.#opened]
        .filter((one) => !ours.has(one[0]) && isWanted(one))
        .map(([fd]) => fd);
      if (found.length > count && kind === "memory") found = found.filter(isInMemory);
      if (found.length === count) break;
    }
    if (found.length === count) for (const fd of found) this.#opened.delete(fd);
    return found;
  }

  /**
   * Closes what belongs to no message, as far as it cannot be of this process: events, and anonymous memory. Everything else
   * stays open: other threads may have opened it.
   */
  closeRest(): void {
    const rest = [...this.#opened]
      .filter(([, target]) => target === EVENT || target.startsWith(MEMORY))
      .map(([fd]) => [fd, identityOf(fd)] as const);
    this.#opened.clear();
    if (rest.length === 0) return;
    setTimeout(() => {
      const ours = watchedByUs();
      for (const [fd, identity] of rest) {
        const isSame = identity !== undefined && identityOf(fd) === identity;
        if (isSame && !ours.has(fd)) closeSync(fd);
      }
    }, SETTLED_MS).unref();
  }
}

function isEvent([, target]: readonly [number, string]): boolean {
  return target === EVENT;
}

/** Tells whether a descriptor is of a file that is open for reading and writing, as memory of a guest has to be. */
function isFile([fd]: readonly [number, string]): boolean {
  try {
    return fstatSync(fd).isFile() && accessOf(fd) === constants.O_RDWR;
  } catch {
    return false; // was closed meanwhile
  }
}

/** Tells whether a file is in a file system that is in memory, as those of a store hardly are. */
function isInMemory(fd: number): boolean {
  try {
    return MEMORY_SYSTEMS.has(statfsSync(`/proc/self/fd/${fd}`).type);
  } catch {
    return false; // was closed meanwhile
  }
}
