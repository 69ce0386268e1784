import { context } from "@opentelemetry/api";
import { suppressTracing } from "@opentelemetry/core";
import { B3Digest } from "@tvix/castore";
import type { Logger } from "pino";
import type { Services } from "../services.ts";

/** Time limit for the answers of all stores, in milliseconds. */
const TIMEOUT_MS = 5_000;

/** How long an answer counts, in milliseconds: those who ask need no token. */
const KEEP_MS = 1_000;

/** The hash part of no store path, and the digest of nothing that is stored. */
const NO_HASH_PART = new Uint8Array(20);
const NO_DIGEST = B3Digest.fromBytes(new Uint8Array(32));

/**
 * Tells whether the stores answer, by looking up what they do not have. Asks them once a second at most. A store that does not
 * answer is a warning in the log, once until it answers again.
 */
export class Readiness implements AsyncDisposable {
  readonly #services: Services;
  readonly #stopping: AbortSignal;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  /** The stores that did not answer when they were asked last. */
  #silent: ReadonlySet<string> = new Set();
  #last: { readonly answer: Promise<string | undefined>; readonly atMs: number } | undefined;

  /** @param stopping aborts when the server begins to stop */
  constructor(services: Services, stopping: AbortSignal, logger: Logger) {
    this.#services = services;
    this.#stopping = stopping;
    this.#logger = logger;
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

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#last?.answer;
  }

  async #ask(): Promise<string | undefined> {
    const ended = [this.#closing.signal, this.#stopping];
    const signal = AbortSignal.any([...ended, AbortSignal.timeout(TIMEOUT_MS)]);
    const { blobService, directoryService, pathInfoService } = this.#services;
    const ask = (): readonly (readonly [name: string, answer: Promise<unknown>])[] => [
      ["blob service", blobService.has(NO_DIGEST, { signal })],
      ["directory service", directoryService.get(NO_DIGEST, { signal })],
      ["path info service", pathInfoService.get(NO_HASH_PART, { signal })],
    ];
    const asked = context.with(suppressTracing(context.active()), ask); // nobody's calls
    const settled = await Promise.allSettled(asked.map(([, answer]) => answer));
    if (ended.some(({ aborted }) => aborted)) return "shutting down";
    const failed = new Map<string, unknown>();
    for (const [i, result] of settled.entries()) {
      if (result.status === "rejected") failed.set(asked[i]![0], result.reason);
    }
    this.#log(failed);
    if (failed.size === 0) return undefined;
    return `no answer: ${[...failed.keys()].join(", ")}; see the log`;
  }

  #log(failed: ReadonlyMap<string, unknown>): void {
    for (const [name, error] of failed) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!this.#silent.has(name)) this.#logger.warn(`the ${name} does not answer: ${reason}`);
    }
    for (const name of this.#silent) {
      if (!failed.has(name)) this.#logger.info(`the ${name} answers again`);
    }
    this.#silent = new Set(failed.keys());
  }
}
