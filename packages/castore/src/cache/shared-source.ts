import { unlessAborted } from "../bytes/abort.ts";

/** What a {@link SharedSource} is told. */
export interface SharedSourceOptions<T> {
  /** Takes what has come, which is lent until it returns. */
  readonly onItem: (item: T) => void;
  /** Is told when everything has come. Default: nobody is. */
  readonly onEnd?: () => void;
  /** Ends the waiting, and fails the source. */
  readonly signal: AbortSignal;
}

/** A stream that several read together: whoever wants more of it has that come, for all of them. */
export class SharedSource<T> {
  readonly #iterator: AsyncIterator<T>;
  readonly #options: SharedSourceOptions<T>;
  #state: "reading" | "ended" | "failed" | "closed" = "reading";
  #failure: unknown;
  #reading: Promise<void> | undefined;

  constructor(stream: AsyncIterable<T>, options: SharedSourceOptions<T>) {
    this.#iterator = stream[Symbol.asyncIterator]();
    this.#options = options;
  }

  /** `ended`: everything has come. `closed`: nobody wanted the rest. */
  get state(): "reading" | "ended" | "failed" | "closed" {
    return this.#state;
  }

  /** Why it has failed. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Reads on for as long as more is wanted, and there may be more. Never rejects. */
  async readWhile(isWanted: () => boolean): Promise<void> {
    while (this.#state === "reading" && isWanted()) {
      this.#reading ??= this.#readItem().finally(() => {
        this.#reading = undefined;
      });
      await this.#reading;
    }
  }

  /** Ends it, if it goes on. Resolves when the stream has ended. */
  async close(): Promise<void> {
    if (this.#state === "reading") this.#state = "closed";
    await this.#iterator.return?.();
  }

  async #readItem(): Promise<void> {
    const { onItem, onEnd, signal } = this.#options;
    try {
      const { done, value } = await unlessAborted(this.#iterator.next(), signal);
      if (this.#state !== "reading") return; // closed meanwhile
      if (!done) return onItem(value);
      this.#state = "ended";
      onEnd?.();
    } catch (error) {
      if (this.#state !== "reading") return;
      this.#state = "failed";
      this.#failure = error;
    }
  }
}
