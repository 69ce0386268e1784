import { type AbortOptions, lruCache, SingleFlight } from "@tvix/castore";
import { encodeNixbase32, type PathInfo, type PathInfoService } from "@tvix/store";
import { type DebugInfoSources, indexDebugInfo } from "./debug-info-index.ts";
import { isLost } from "./stored-nars.ts";

/** How store paths are named that Nixpkgs separates debug information into. */
const NAME = /-debug$/;

/** Least time between two scans, in milliseconds, and how many times as long as a scan it is at least. */
const PAUSE_MS = 60_000;
const PAUSE_FACTOR = 20;

/** How many store paths are remembered to be indexed, some hundred bytes each. */
const REMEMBERED = 65_536;

/** Where {@link DebugInfoScan} looks. */
export interface DebugInfoScanSources extends DebugInfoSources {
  readonly pathInfoService: Pick<PathInfoService, "list">;
}

/**
 * Finds debug information in store paths that no client has pushed, such as imported ones: those whose names end with
 * `-debug`. Nobody tells when one was imported, so they are looked for when a build id is asked for in vain.
 */
export class DebugInfoScan {
  readonly #sources: DebugInfoScanSources;
  readonly #running = new SingleFlight<void>();
  /** Hash parts of the store paths that were indexed. */
  readonly #indexed = lruCache<string, true>(REMEMBERED);
  /** Before this time, by the clock of `performance`, no scan begins. */
  #pausedUntilMs = 0;

  constructor(sources: DebugInfoScanSources) {
    this.#sources = sources;
  }

  /**
   * Indexes the store paths that were registered since the last time, unless that was a moment ago.
   *
   * @throws whatever the services throw
   */
  async run(options?: AbortOptions): Promise<void> {
    if (performance.now() < this.#pausedUntilMs) return;
    await this.#running.run("", (signal) => this.#scan({ signal }), options);
  }

  async #scan(options: AbortOptions): Promise<void> {
    const startedMs = performance.now();
    for await (const pathInfo of this.#sources.pathInfoService.list(options)) {
      if (NAME.test(pathInfo.storePath.name)) await this.#index(pathInfo, options);
    }
    const durationMs = performance.now() - startedMs;
    this.#pausedUntilMs = performance.now() + Math.max(PAUSE_MS, durationMs * PAUSE_FACTOR);
  }

  async #index({ storePath, node, narSha256 }: PathInfo, options: AbortOptions): Promise<void> {
    const hash = encodeNixbase32(storePath.hashPart);
    if (this.#indexed.has(hash)) return;
    const url = `nar/${encodeNixbase32(narSha256)}.nar?hash=${hash}`;
    try {
      await indexDebugInfo(node, url, this.#sources, options);
    } catch (error) {
      if (!isLost(error)) throw error;
      return; // it may be stored again
    }
    this.#indexed.set(hash, true);
  }
}
