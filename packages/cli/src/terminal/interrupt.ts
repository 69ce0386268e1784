/** Thrown where SIGINT or SIGTERM ends a command early. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  /** Exit status by the convention of shells: 128 and the number of the signal. */
  readonly exitStatus: number;

  constructor(signal: "SIGINT" | "SIGTERM") {
    super(`Ended by ${signal}`);
    this.exitStatus = signal === "SIGINT" ? 130 : 143;
  }
}

/** Handles SIGINT and SIGTERM until it is disposed of. */
export class Interrupt implements Disposable {
  readonly #first = new AbortController();
  readonly #second = new AbortController();

  constructor() {
    process.on("SIGINT", this.#take).on("SIGTERM", this.#take);
  }

  /** Aborted by the first signal, with an {@link Interrupted}: shut down in good order. */
  get signal(): AbortSignal {
    return this.#first.signal;
  }

  /** Aborted by the second signal: end at once. */
  get urgent(): AbortSignal {
    return this.#second.signal;
  }

  readonly #take = (signal: NodeJS.Signals): void => {
    const stage = this.#first.signal.aborted ? this.#second : this.#first;
    stage.abort(new Interrupted(signal === "SIGINT" ? "SIGINT" : "SIGTERM"));
  };

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#take).off("SIGTERM", this.#take);
  }
}
