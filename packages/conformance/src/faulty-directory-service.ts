import {
  type AbortOptions,
  type B3Digest,
  Directory,
  type DirectoryPutter,
  type DirectoryService,
  pathComponent,
  type RecursiveOptions,
  symlinkTarget,
} from "@tvix/castore";
import { FaultPlan, type Faults } from "./fault-plan.ts";
import { faultyCollector } from "./faulty-collector.ts";

/** An entry that some wrong directories have. */
const WRONG = {
  name: pathComponent("wrong"),
  node: { type: "symlink", target: symlinkTarget("wrong") },
} as const;

/**
 * A directory service between another one and whoever uses it, of which calls go wrong, the same ones for the same seed.
 * Trees may be cut off, and directories others, without a word: no service may do so.
 */
export class FaultyDirectoryService implements DirectoryService {
  readonly #service: DirectoryService;
  readonly #plan: FaultPlan;

  /** @param service is disposed of with it */
  constructor(service: DirectoryService, faults: Faults, seed: number) {
    this.#service = service;
    this.#plan = new FaultPlan(faults, seed, service.constructor.name);
  }

  /** How many times something went wrong so far. */
  get faults(): number {
    return this.#plan.happened;
  }

  /** Lets nothing go wrong from now on. */
  heal(): void {
    this.#plan.heal();
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    await this.#plan.call();
    const found = await this.#service.get(digest, options);
    return found && this.#damaged(found);
  }

  async getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    await this.#plan.call();
    const found = await this.#service.getMany(digests, options);
    return found.map((directory) => directory && this.#damaged(directory));
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    await this.#plan.call();
    return await this.#service.hasMany(digests, options);
  }

  async *getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncGenerator<Directory> {
    await this.#plan.call();
    for await (const directory of this.#service.getRecursive(digest, options)) {
      await this.#plan.call();
      options?.signal?.throwIfAborted();
      if (this.#plan.truncates()) return;
      yield this.#damaged(directory);
    }
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const putter = this.#service.openPutter(options);
    const { add, ...rest } = faultyCollector(this.#plan, putter, (directory: Directory) =>
      putter.put(directory),
    );
    return { put: add, ...rest };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service[Symbol.asyncDispose]();
  }

  #damaged(directory: Directory): Directory {
    if (!this.#plan.corrupts()) return directory;
    const { entries } = directory;
    return Directory.from(entries.length > 0 ? entries.slice(1) : [WRONG]);
  }
}
