import type { ImportProgress } from "@tvix/castore";

/** How far something is; without `newBytes` if it is not known how many bytes are new. */
type Step = Pick<ImportProgress, "bytes"> & Partial<Pick<ImportProgress, "newBytes">>;

/** The rate is that of the last seconds, in milliseconds. */
const WINDOW_MS = 8_000;

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Something that is counted. */
export interface TallyTask {
  update(step: Step): void;
  /** Returns a line about it. */
  describe(): string;
  end(): void;
}

/** Counts what is done and what was found so far, of all that a command does. */
export class ProgressTally {
  readonly #running = new Map<TallyTask, { readonly what: string; step: Step }>();
  #expectedThings = 0;
  #expectedBytes = 0;
  #begun = 0;
  #done = 0;
  #doneBytes = 0;
  /** Bytes of which it is known whether they were new, and those that were. */
  #toldBytes = 0;
  #newBytes = 0;
  /** How many bytes were done at which times, of the last seconds. */
  readonly #samples: { readonly atMs: number; readonly bytes: number }[] = [];

  expect({ things = 0, bytes = 0 }: { things?: number; bytes?: number }): void {
    this.#expectedThings += things;
    this.#expectedBytes += bytes;
  }

  begin(what: string): TallyTask {
    const beganMs = performance.now();
    const state = { what, step: { bytes: 0 } as Step };
    const task: TallyTask = {
      update: (step) => {
        state.step = step;
      },
      end: () => {
        this.#running.delete(task);
        const { bytes, newBytes } = state.step;
        this.#done += 1;
        this.#doneBytes += bytes;
        if (newBytes !== undefined) {
          this.#toldBytes += bytes;
          this.#newBytes += newBytes;
        }
      },
      describe: () => {
        const { bytes, newBytes } = state.step;
        const isNew = newBytes === undefined ? "" : `, ${formatBytes(newBytes)} new`;
        return `${what}: ${formatBytes(bytes)}${isNew}, ${formatTime(performance.now() - beganMs)}`;
      },
    };
    this.#running.set(task, state);
    this.#begun += 1;
    return task;
  }

  /** Whether nothing is being done. */
  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  /** Returns one line about everything, what matters most first. */
  summary(): string {
    const steps = Array.from(this.#running.values(), ({ step }) => step);
    const sum = (of: (step: Step) => number) => steps.reduce((total, step) => total + of(step), 0);
    const bytes = this.#doneBytes + sum((step) => step.bytes);
    const isTold = (step: Step) => step.newBytes !== undefined;
    const told = this.#toldBytes + sum((step) => (isTold(step) ? step.bytes : 0));
    const isNew = this.#newBytes + sum(({ newBytes = 0 }) => newBytes);
    const rate = this.#rate(bytes);
    const left = this.#expectedBytes - bytes;
    const things = Math.max(this.#expectedThings, this.#begun);
    const shared = told > 0 ? Math.max(0, Math.floor((100 * (told - isNew)) / told)) : undefined;
    const parts = [
      ...(things > 1 ? [`${this.#done} of ${things}`] : []),
      left > 0
        ? `${formatBytes(bytes)} of ${formatBytes(this.#expectedBytes)}`
        : formatBytes(bytes),
      ...(rate > 0 ? [`${formatBytes(rate)}/s`] : []),
      ...(shared === undefined ? [] : [`${shared} % deduplicated`]),
      ...(rate > 0 && left > 0 ? [`${formatTime((1000 * left) / rate)} left`] : []),
    ];
    const running = Array.from(this.#running.values(), ({ what }) => what);
    return `${parts.join(", ")}${running.length > 0 ? `: ${running.join(", ")}` : ""}`;
  }

  /** Returns the bytes a second of the last seconds. */
  #rate(bytes: number): number {
    const now = performance.now();
    this.#samples.push({ atMs: now, bytes });
    while (this.#samples[0]!.atMs < now - WINDOW_MS) this.#samples.shift();
    const [{ atMs, bytes: before }] = this.#samples as [{ atMs: number; bytes: number }];
    return now - atMs < 500 ? 0 : (1000 * (bytes - before)) / (now - atMs);
  }
}

/** Returns a number of bytes with a unit, in powers of 1,000. */
function formatBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const value = bytes / 1000 ** power;
  return `${power === 0 ? Math.round(value) : value.toFixed(value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

/** Returns a time as `4.2 s`, `3:07` or `1:02:03`. */
function formatTime(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const padded = [minutes, seconds % 60].map((value) => `${value}`.padStart(2, "0")).join(":");
  return hours > 0 ? `${hours}:${padded}` : padded.replace(/^0/, "");
}
