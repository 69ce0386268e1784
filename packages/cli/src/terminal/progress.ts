import type { ProgressOptions } from "../options/progress-option.ts";
import { type NoticeLevel, notice } from "./notices.ts";
import type { Progress, ProgressTask } from "./progress-contract.ts";
import { ProgressTally } from "./progress-tally.ts";

/** How often a line is written where they go to a log, in milliseconds. */
const PLAIN_INTERVAL_MS = 5_000;

/**
 * Opens the progress of a command.
 *
 * @param options.progress `auto`, a line that changes if stderr is a terminal of a known width, as `plain` for one of unknown
 *   width, and nothing otherwise; `plain`, a line every five seconds; `none` or `false`. Default: `auto`, or `none` for a command that is to be quiet
 */
export async function openProgress({
  progress = "auto",
  quiet = false,
}: ProgressOptions = {}): Promise<Progress> {
  if (quiet || progress === false || progress === "none") return new SilentProgress();
  if (progress === "plain") return new PlainProgress();
  if (!process.stderr.isTTY) return new SilentProgress();
  if (process.stderr.columns === 0) return new PlainProgress(); // where ora would clear infinitely many rows
  const { default: ora } = await import("ora");
  const { TerminalProgress } = await import("./terminal-progress.ts");
  // With `discardStdin`, ora would read the terminal, and Ctrl-C would be no signal.
  return new TerminalProgress(ora({ stream: process.stderr, discardStdin: false }));
}

/** Shows notices only. */
class SilentProgress implements Progress {
  readonly isShown = false;

  expect(): void {}

  begin(): ProgressTask {
    return { update() {}, finish() {}, [Symbol.dispose]() {} };
  }

  tell(message: string, level: NoticeLevel = "warn"): void {
    notice(level, message);
  }

  [Symbol.dispose](): void {}
}

/** Writes a line every few seconds, for logs. */
class PlainProgress implements Progress {
  readonly isShown = true;
  readonly #tally = new ProgressTally();
  readonly #timer = setInterval(
    () => notice("info", this.#tally.summary()),
    PLAIN_INTERVAL_MS,
  ).unref();

  expect(more: { things?: number; bytes?: number }): void {
    this.#tally.expect(more);
  }

  begin(what: string): ProgressTask {
    const task = this.#tally.begin(what);
    return {
      update: (progress) => task.update(progress),
      finish: () => notice("info", task.describe()),
      [Symbol.dispose]: () => task.end(),
    };
  }

  tell(message: string, level: NoticeLevel = "warn"): void {
    notice(level, message);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
