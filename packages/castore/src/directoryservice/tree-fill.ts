import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { SharedSource } from "../cache/shared-source.ts";
import type { Tiers } from "../cache/tiers.ts";
import { NearWriter } from "../cache/write-through.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { ClosureSpool, childrenOf } from "./closure-spool.ts";
import type { DirectoryService } from "./directory-service.ts";
import { encodeDirectory } from "./encoded-directory.ts";

/**
 * Reads one tree of the far half, once for all who read it meanwhile, and stores it in the near half when all of it
 * has come. Whoever is first goes on reading, and waits for none of the others: what has come is kept for them in a
 * temporary file. When nobody reads it any more, and it is not wanted for the near half alone, it is given up.
 */
export class TreeFill {
  readonly #digest: B3Digest;
  readonly #tiers: Tiers<DirectoryService>;
  readonly #spool = new ClosureSpool();
  /** What has come, in that order. */
  readonly #order: B3Digest[] = [];
  /** What has come last, for those who keep up. */
  #last: Directory | undefined;
  /** What has come or will, by digest. */
  readonly #parts: Set<string>;
  readonly #abandon = new AbortController();
  readonly #signal: AbortSignal;
  readonly #source: SharedSource<Directory>;
  #copying: Promise<void> | undefined;
  #storing: Promise<void> | undefined;
  /** Readers, and whoever copies or stores it. */
  #users = 0;
  readonly #onOver: () => void;

  /** @param onOver is told when nobody needs it any more, and nobody is to use it from then on */
  constructor(digest: B3Digest, tiers: Tiers<DirectoryService>, onOver: () => void) {
    this.#onOver = onOver;
    this.#digest = digest;
    this.#tiers = tiers;
    this.#parts = new Set([digest.hex]);
    this.#signal = AbortSignal.any([this.#abandon.signal, tiers.closing]);
    const signal = this.#signal;
    this.#source = new SharedSource(tiers.far.getRecursive(digest, { signal }), {
      onItem: (directory) => this.#add(directory),
      onEnd: () => this.#end(),
      signal,
    });
  }

  /** Whether a directory is known to be in the tree. */
  has(digest: B3Digest): boolean {
    return this.#parts.has(digest.hex);
  }

  /** The tree, in the order of the far half. */
  async *read(options?: AbortOptions): AsyncGenerator<Directory> {
    this.#users += 1;
    try {
      for (let next = 0; ; next++) {
        const reached = this.#source.readWhile(() => next === this.#order.length);
        await unlessAborted(reached, options?.signal);
        if (next === this.#order.length) break;
        const isLast = next === this.#order.length - 1;
        yield isLast ? this.#last! : this.#spool.get(this.#order[next]!)!;
      }
      if (this.#source.state === "failed") throw this.#source.failure;
    } finally {
      this.#leave();
    }
  }

  /** Reads on to the end, and stores it, whoever else reads. Never rejects; what fails is warned of. */
  copy(): Promise<void> {
    this.#copying ??= this.#copy();
    return this.#copying;
  }

  async #copy(): Promise<void> {
    this.#users += 1;
    try {
      await this.#source.readWhile(() => true);
      if (this.#source.state === "failed" && !this.#signal.aborted) {
        this.#tiers.warn(this.#action, this.#source.failure);
      }
      await this.#storing;
    } finally {
      this.#leave();
    }
  }

  get #action(): string {
    return `keep the tree below ${this.#digest} in`;
  }

  #add(directory: Directory): void {
    const encoded = encodeDirectory(directory);
    this.#spool.add(encoded);
    this.#order.push(encoded.digest);
    this.#last = directory;
    for (const child of childrenOf(directory)) this.#parts.add(child.hex);
  }

  #end(): void {
    if (this.#order.length === 0) return;
    this.#users += 1;
    this.#storing = this.#store().finally(() => this.#leave());
    this.#tiers.inBackground(this.#storing);
  }

  async #store(): Promise<void> {
    const signal = this.#signal;
    const open = (near: DirectoryService, options: AbortOptions) => near.openPutter(options);
    await using writer = new NearWriter(this.#tiers, this.#action, open, { signal });
    for (const directory of this.#spool.leavesFirst(this.#digest)) {
      if (!(await writer.try((putter) => putter.put(directory)))) return;
    }
    await writer.try((putter) => putter.close());
  }

  #leave(): void {
    this.#users -= 1;
    if (this.#users > 0) return;
    this.#tiers.inBackground(this.#source.close());
    this.#abandon.abort(new CastoreError("aborted", "Cannot go on: nobody waits any more"));
    this.#spool[Symbol.dispose]();
    this.#onOver();
  }
}
