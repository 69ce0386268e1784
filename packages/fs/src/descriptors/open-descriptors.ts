import { constants, fstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What a descriptor is of that counts events, as `/proc` tells it. */
export const EVENT = "anon_inode:[eventfd]";

/** Returns the descriptors of this process, in rising order, with what tells the files behind them apart. */
export function openDescriptors(): Map<number, string> {
  const found = new Map<number, string>();
  for (const name of readdirSync("/proc/self/fd")) {
    const identity = identityOf(Number(name));
    if (identity !== undefined) found.set(Number(name), identity); // else it was open for the listing only
  }
  return new Map([...found].sort(([a], [b]) => a - b));
}

/** Returns what tells an open file from others that had the same number before; `undefined` if it is not open. */
export function identityOf(fd: number): string | undefined {
  const target = targetOf(fd);
  try {
    // All events have one inode.
    if (target === EVENT) {
      const id = /^eventfd-id:.*$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"));
      return `${target} ${id}`;
    }
    return target?.startsWith("/") ? `${target} ${fstatSync(fd).ino}` : target;
  } catch {
    return undefined;
  }
}

/** Returns what a descriptor is of; `undefined` if it is not open. */
export function targetOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/** Returns for which access a descriptor was opened: `O_RDONLY`, `O_WRONLY` or `O_RDWR`; it throws if it is not open. */
export function accessOf(fd: number): number {
  const [, flags] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))!;
  return Number.parseInt(flags!, 8) & (constants.O_WRONLY | constants.O_RDWR);
}

/** Returns the descriptors that event loops of this process wait for. */
export function watchedByUs(): Set<number> {
  const watched = new Set<number>();
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`) !== "anon_inode:[eventpoll]") continue;
      const text = readFileSync(`/proc/self/fdinfo/${name}`, "utf8");
      for (const [, fd] of text.matchAll(/^tfd:\s*(\d+)/gm)) watched.add(Number(fd));
    } catch {} // was closed meanwhile
  }
  return watched;
}
