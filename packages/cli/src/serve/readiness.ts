import { B3Digest } from "@tvix/castore";
import type { Services } from "../services.ts";

/** Time limit for the answers of all stores, in milliseconds. */
const TIMEOUT_MS = 5_000;

/** How long an answer counts, in milliseconds: those who ask need no token. */
const KEEP_MS = 1_000;

/** The hash part of no store path, and the digest of nothing that is stored. */
const NO_HASH_PART = new Uint8Array(20);
const NO_DIGEST = B3Digest.fromBytes(new Uint8Array(32));

/** Tells whether the stores answer, by looking up what they do not have. Asks them once a second at most. */
export class Readiness {
  readonly #services: Services;
  readonly #stopping: AbortSignal;
  #last: { readonly answer: Promise<string | undefined>; readonly atMs: number } | undefined;

  /** @param stopping aborts when the server begins to stop */
  constructor(services: Services, stopping: AbortSignal) {
    this.#services = services;
    this.#stopping = stopping;
  }

  /** Returns why the daemon cannot serve, without secrets; `undefined` if it can. */
  async check(): Promise<string | undefined> {
    if (this.#stopping.aborted) return "shutting down";
    const nowMs = performance.now();
    if (this.#last === undefined || nowMs - this.#last.atMs > KEEP_MS) {
      this.#last = { answer: this.#ask(), atMs: nowMs };
    }
    return await this.#last.answer;
  }

  async #ask(): Promise<string | undefined> {
    const options = { signal: AbortSignal.timeout(TIMEOUT_MS) };
    const { blobService, directoryService, pathInfoService } = this.#services;
    const asked: readonly (readonly [name: string, answer: Promise<unknown>])[] = [
      ["blob service", blobService.has(NO_DIGEST, options)],
      ["directory service", directoryService.get(NO_DIGEST, options)],
      ["path info service", pathInfoService.get(NO_HASH_PART, options)],
    ];
    const settled = await Promise.allSettled(asked.map(([, answer]) => answer));
    const failed = asked.filter((_, i) => settled[i]!.status === "rejected");
    if (failed.length === 0) return undefined;
    return `no answer: ${failed.map(([name]) => name).join(", ")}; see the log`;
  }
}
