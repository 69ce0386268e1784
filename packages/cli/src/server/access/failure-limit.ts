import { lruCache } from "@tvix/castore";
import type { LRUCache } from "lru-cache";

/** Options of a {@link FailureLimit}. */
export interface FailureLimitOptions {
  /** How many failures are allowed at once. Default: 10. */
  burst?: number;
  /** How long it takes until one more is allowed, in milliseconds. Default: 6,000. */
  recoverMs?: number;
  /** How many sources are remembered. The one that failed longest ago is forgotten first. Default: 10,000. */
  maxSources?: number;
}

/** Limits the failures of each source: some at once, and then one after each pause. */
export class FailureLimit {
  readonly #burst: number;
  readonly #recoverMs: number;
  /** When all failures of a source will be forgotten, in milliseconds of the monotonic clock. */
  readonly #clearMs: LRUCache<string, { readonly atMs: number }>;

  constructor({ burst = 10, recoverMs = 6_000, maxSources = 10_000 }: FailureLimitOptions = {}) {
    this.#burst = burst;
    this.#recoverMs = recoverMs;
    this.#clearMs = lruCache(maxSources);
  }

  /** Returns how long a source has to wait before its next attempt, in milliseconds; 0 if not at all. */
  waitMs(source: string): number {
    const pending = (this.#clearMs.get(source)?.atMs ?? 0) - performance.now();
    return Math.max(0, pending - (this.#burst - 1) * this.#recoverMs);
  }

  /** Counts a failure of a source. */
  count(source: string): void {
    const from = Math.max(this.#clearMs.get(source)?.atMs ?? 0, performance.now());
    this.#clearMs.set(source, { atMs: from + this.#recoverMs });
  }

  /** Takes back a failure that was counted. */
  forgive(source: string): void {
    const counted = this.#clearMs.get(source);
    if (counted) this.#clearMs.set(source, { atMs: counted.atMs - this.#recoverMs });
  }
}

/**
 * Returns the source that a client belongs to: its IPv4 address, or the network of its IPv6 address, as whoever has one
 * address there has all of them.
 *
 * @param peer the client, as `host:port`, `[IPv6]:port` or `unix`
 */
export function sourceOf(peer: string): string {
  const [, ipv6] = (peer.startsWith("[") && /^\[([^\]%]*)/.exec(peer)) || [];
  if (ipv6 === undefined) return peer.split(":", 1)[0]!;
  if (ipv6.startsWith("::ffff:")) return ipv6.slice("::ffff:".length);
  const [head, tail] = ipv6.split("::").map((part) => part.split(":").filter(Boolean));
  const zeros = Array<string>(tail === undefined ? 0 : 8 - head!.length - tail.length).fill("0");
  return `${[...head!, ...zeros, ...(tail ?? [])].slice(0, 4).join(":")}::/64`;
}
