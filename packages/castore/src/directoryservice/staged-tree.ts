import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { DirectoryPutter } from "./directory-service.ts";
import { type EncodedDirectory, encodeDirectory } from "./encoded-directory.ts";
import { LeavesToRootValidator } from "./order-validator.ts";

/** Staging area for the directories of one tree, until all have been put. */
export interface TreeStage {
  /** Stages a directory. Each is staged once, leaves first. */
  add(encoded: EncodedDirectory): Promise<void>;
  /** Makes all staged directories durable and visible. */
  commit(options?: AbortOptions): Promise<void>;
  /** Releases the staging area. Called once, last, also after `commit`. */
  discard(): void | Promise<void>;
}

/** Putter of services that stage a tree until it is complete and validated. */
export class StagedTree implements DirectoryPutter {
  readonly #stage: TreeStage;
  readonly #signal: AbortSignal | undefined;
  readonly #validator = new LeavesToRootValidator();
  #open = true;
  #closed: Promise<B3Digest> | undefined;

  constructor(stage: TreeStage, options?: AbortOptions) {
    this.#stage = stage;
    this.#signal = options?.signal;
  }

  async put(directory: Directory): Promise<void> {
    if (this.#closed !== undefined || !this.#open) {
      throw new CastoreError(
        "invalid_argument",
        "Cannot put a directory: expected an open putter, found an ended one",
      );
    }
    try {
      this.#signal?.throwIfAborted();
      const encoded = encodeDirectory(directory);
      if (this.#validator.add(encoded)) await this.#stage.add(encoded);
    } catch (error) {
      await this.#end();
      throw error;
    }
  }

  close(): Promise<B3Digest> {
    this.#closed ??= this.#commit();
    return this.#closed;
  }

  async #commit(): Promise<B3Digest> {
    try {
      this.#signal?.throwIfAborted();
      if (!this.#open) {
        throw new CastoreError(
          "invalid_argument",
          "Cannot close the putter: expected an open one, found one that has failed or ended",
        );
      }
      const root = this.#validator.finish();
      await this.#stage.commit({ signal: this.#signal });
      return root;
    } finally {
      await this.#end();
    }
  }

  async #end(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#stage.discard();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closed?.catch(() => undefined); // the caller of close() has the error
    await this.#end();
  }
}
