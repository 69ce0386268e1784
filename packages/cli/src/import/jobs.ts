import { type AbortOptions, CastoreError } from "@tvix/castore";
import { describeError } from "../run.ts";
import { Interrupted } from "../terminal/interrupt.ts";
import { OutputError, writeStdout } from "../terminal/output.ts";

/** Work on one of the things that a command is given. */
export interface Job {
  /** Returns what to print about the result, in whole lines. */
  run(options: { signal: AbortSignal }): Promise<string>;
}

/** Options of {@link runJobs}. */
export interface JobOptions extends AbortOptions {
  /** How many run at the same time. */
  concurrency: number;
  /** Names several of the things, such as "paths". */
  things: string;
  /** Writes a line on stderr. */
  tell: (message: string) => void;
}

/** How many jobs may be done, or under way, while the output of an earlier one waits. */
const MAX_AHEAD = 16;

/**
 * Runs jobs, several at the same time, and prints their results on stdout in their order. A failure is told on stderr and
 * sets the exit status to 1; the other jobs go on, unless it is that of a store that all of them need.
 *
 * When it rejects because of a signal, the results of all jobs that are done were printed.
 *
 * @throws OutputError if stdout takes no more; `signal.reason`; the error of a single job
 */
export async function runJobs(jobs: readonly Job[], options: JobOptions): Promise<void> {
  await new JobRun(jobs, options).run();
}

/** What came of a job: its output, or why it failed. */
type Outcome = { readonly output: string } | { readonly error: unknown };

class JobRun {
  readonly #jobs: readonly Job[];
  readonly #options: JobOptions;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #outcomes: (Outcome | undefined)[];
  #next = 0;
  /** How many outcomes were told. */
  #told = 0;
  #failed = 0;
  #lastFailure: string | undefined;
  #telling: Promise<void> = Promise.resolve();
  #onTold = Promise.withResolvers<void>();
  #fatal: { readonly error: unknown } | undefined;

  constructor(jobs: readonly Job[], options: JobOptions) {
    this.#jobs = jobs;
    this.#options = options;
    this.#outcomes = jobs.map(() => undefined);
    const { signal } = options;
    this.#signal = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
  }

  async run(): Promise<void> {
    const workers = Array.from({ length: this.#options.concurrency }, () => this.#work());
    await Promise.all(workers);
    await this.#telling;
    if (this.#options.signal?.aborted) {
      this.#printRest();
      throw this.#options.signal.reason;
    }
    if (this.#fatal !== undefined) throw this.#fatal.error;
    if (this.#failed === 0) return;
    process.exitCode = 1;
    const { things, tell } = this.#options;
    const untried = this.#jobs.length - this.#next;
    const rest = untried > 0 ? `; ${untried} were not tried` : "";
    tell(`${this.#failed} of ${this.#jobs.length} ${things} failed${rest}`);
  }

  async #work(): Promise<void> {
    while (this.#next < this.#jobs.length && !this.#signal.aborted) {
      if (this.#next - this.#told >= MAX_AHEAD) {
        await this.#onTold.promise;
        continue;
      }
      const i = this.#next++;
      this.#outcomes[i] = await this.#runOne(this.#jobs[i]!);
      this.#telling = this.#telling.then(() => this.#tellOutcomes());
    }
  }

  async #runOne(job: Job): Promise<Outcome> {
    try {
      return { output: await job.run({ signal: this.#signal }) };
    } catch (error) {
      if (isOfStore(error) || !(error instanceof CastoreError)) this.#stop.abort(error);
      return { error };
    }
  }

  /** Tells the outcomes of jobs before which none is under way. */
  async #tellOutcomes(): Promise<void> {
    try {
      for (;;) {
        const outcome = this.#outcomes[this.#told];
        if (outcome === undefined || this.#signal.reason instanceof OutputError) return;
        if ("output" in outcome) await writeStdout(outcome.output, this.#options);
        else this.#tellFailure(outcome.error);
        this.#told += 1;
      }
    } catch (error) {
      this.#fatal ??= { error };
      this.#stop.abort(error);
    } finally {
      this.#onTold.resolve();
      this.#onTold = Promise.withResolvers();
    }
  }

  #tellFailure(error: unknown): void {
    if (error instanceof Interrupted || this.#options.signal?.aborted) return;
    const isAlone = this.#jobs.length === 1;
    if (isAlone || !(error instanceof CastoreError)) {
      this.#fatal ??= { error };
      return;
    }
    this.#failed += 1;
    const message = describeError(error);
    if (message !== this.#lastFailure) this.#options.tell(message); // those under way fail alike when a store is gone
    this.#lastFailure = message;
  }

  /** Prints the output of jobs that are done, behind others that are not, without waiting for the reader. */
  #printRest(): void {
    for (const outcome of this.#outcomes.slice(this.#told)) {
      if (outcome !== undefined && "output" in outcome) process.stdout.write(outcome.output);
    }
  }
}

/** Tells whether an error is that of a store that is out of reach or full, or refuses everything. */
function isOfStore(error: unknown): boolean {
  if (!(error instanceof CastoreError) || error.store === undefined) return false;
  return ["unavailable", "resource_exhausted", "permission_denied"].includes(error.code);
}
