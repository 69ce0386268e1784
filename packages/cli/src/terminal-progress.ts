import type { Ora } from "ora";
import { type NoticeLevel, notice } from "./notices.ts";
import type { Progress, ProgressTask } from "./progress.ts";

/** Shows progress in a line of the terminal that changes. */
export class TerminalProgress implements Progress {
  readonly #spinner: Ora;
  readonly #running = new Map<ProgressTask, string>();

  constructor(spinner: Ora) {
    this.#spinner = spinner;
  }

  begin(what: string): ProgressTask {
    const task: ProgressTask = {
      update: ({ entries, bytes }) =>
        show(`${what}: ${entries} entries, ${(bytes / 1e6).toFixed(1)} MB`),
      [Symbol.dispose]: () => {
        this.#running.delete(task);
        if (this.#running.size === 0) this.#spinner.stop();
      },
    };
    const show = (text: string) => {
      this.#running.set(task, text);
      this.#spinner.text = [...this.#running.values()].join("; ");
    };
    show(what);
    this.#spinner.start();
    return task;
  }

  tell(message: string, level: NoticeLevel = "warn"): void {
    if (this.#spinner.isSpinning) this.#spinner.clear(); // ora redraws it
    notice(level, message);
  }

  [Symbol.dispose](): void {
    this.#spinner.stop();
  }
}
