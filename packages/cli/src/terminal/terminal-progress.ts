import { stripVTControlCharacters } from "node:util";
import type { Ora } from "ora";
import stringWidth from "string-width";
import { type NoticeLevel, notice } from "./notices.ts";
import { writeStderr } from "./output.ts";
import type { Progress, ProgressTask } from "./progress-contract.ts";
import { ProgressTally } from "./progress-tally.ts";

/** How often the line changes, in milliseconds: faster nobody can read. */
const INTERVAL_MS = 250;

/** Columns that the spinner takes, and one at the end that stays empty. */
const MARGIN = 3;

/** Shows progress in a line of the terminal that changes, and a line for each thing that is done. */
export class TerminalProgress implements Progress {
  readonly isShown = true;
  readonly #spinner: Ora;
  readonly #tally = new ProgressTally();
  #timer: NodeJS.Timeout | undefined;

  constructor(spinner: Ora) {
    this.#spinner = spinner;
    process.stderr.on("resize", this.#onResize);
  }

  expect(more: { things?: number; bytes?: number }): void {
    this.#tally.expect(more);
  }

  begin(what: string): ProgressTask {
    const task = this.#tally.begin(what);
    this.#timer ??= setInterval(() => this.#show(), INTERVAL_MS).unref();
    if (!this.#spinner.isSpinning) {
      this.#show();
      this.#spinner.start();
    }
    return {
      update: (progress) => task.update(progress),
      finish: () => {
        const line = task.describe();
        // Where stdout is the terminal too, the result is there.
        if (!process.stdout.isTTY) this.#write(() => writeStderr(`${fitRow(line, 0)}\n`));
      },
      [Symbol.dispose]: () => {
        task.end();
        if (this.#tally.isIdle) this.#spinner.stop();
      },
    };
  }

  tell(message: string, level: NoticeLevel = "warn"): void {
    this.#write(() => notice(level, message));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    process.stderr.off("resize", this.#onResize);
    this.#spinner.stop();
  }

  #show(): void {
    this.#spinner.text = fitRow(this.#tally.summary(), MARGIN);
  }

  #write(write: () => void): void {
    if (this.#spinner.isSpinning) this.#spinner.clear(); // ora redraws it
    write();
  }

  /** Removes the rows that the line takes where the terminal has become narrower, and draws it anew. */
  readonly #onResize = (): void => {
    if (!this.#spinner.isSpinning) return;
    const { columns = 80 } = process.stderr;
    const rows = Math.ceil((stringWidth(this.#spinner.text) + MARGIN - 1) / columns);
    if (rows > 1) process.stderr.moveCursor(0, 1 - rows);
    process.stderr.cursorTo(0);
    process.stderr.clearScreenDown();
    this.#show();
    this.#spinner.render();
  };
}

/** Returns text as it fits into a row, without what a terminal would act on. */
function fitRow(text: string, margin: number): string {
  const columns = Math.max((process.stderr.columns ?? 80) - margin, 1);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: names may have control characters
  const plain = stripVTControlCharacters(text).replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
  if (stringWidth(plain) <= columns) return plain;
  let kept = "";
  let width = 1;
  for (const { segment } of new Intl.Segmenter().segment(plain)) {
    width += stringWidth(segment);
    if (width > columns) break;
    kept += segment;
  }
  return `${kept}…`;
}
