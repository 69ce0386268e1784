import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import type { StatusOf } from "./retry.ts";

/** The error for a bucket that does not exist: nothing can be said about what is in it. */
export function missingBucket(name: string, cause?: unknown): CastoreError {
  const text = `Cannot use "${name}": there is no such bucket, or container`;
  return new CastoreError("invalid_argument", text, { cause });
}

/** Finds out whether a bucket exists, where an answer only says that something does not. Once it does, nobody asks again. */
export class BucketCheck {
  readonly #name: string;
  readonly #look: (options?: AbortOptions) => Promise<unknown>;
  readonly #statusOf: StatusOf;
  #exists = false;

  /** @param look makes a request that the bucket itself answers, by the HTTP status 404 if it does not exist */
  constructor(
    name: string,
    look: (options?: AbortOptions) => Promise<unknown>,
    statusOf: StatusOf,
  ) {
    this.#name = name;
    this.#look = look;
    this.#statusOf = statusOf;
  }

  /**
   * Whoever may not look at the bucket is told that it exists.
   *
   * @throws CastoreError `invalid_argument` if it does not; what looking throws
   */
  async assertExists(options?: AbortOptions): Promise<void> {
    if (this.#exists) return;
    try {
      await this.#look(options);
    } catch (error) {
      const status = this.#statusOf(error);
      if (status === 404) throw missingBucket(this.#name, error);
      if (status !== 403) throw error;
    }
    this.#exists = true;
  }
}
