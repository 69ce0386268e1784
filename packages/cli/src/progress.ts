import type { ImportProgress } from "@tvix/castore";
import { type NoticeLevel, notice } from "./notices.ts";

/** Shows on stderr how far a command is. Disposing removes what is shown. */
export interface Progress extends Disposable {
  /** Begins to show something that is being done. */
  begin(what: string): ProgressTask;

  /** Writes a notice. Default: a warning. */
  tell(message: string, level?: NoticeLevel): void;
}

/** Something that is being done. Disposing ends it. */
export interface ProgressTask extends Disposable {
  update(progress: Pick<ImportProgress, "entries" | "bytes">): void;
}

/** Opens the progress of a command: a line that changes if stderr is a terminal, none otherwise. */
export async function openProgress(): Promise<Progress> {
  if (!process.stderr.isTTY) return new SilentProgress();
  const { default: ora } = await import("ora");
  const { TerminalProgress } = await import("./terminal-progress.ts");
  // With `discardStdin`, ora would read the terminal, and Ctrl-C would be no signal.
  return new TerminalProgress(ora({ stream: process.stderr, discardStdin: false }));
}

/** Shows messages only. */
class SilentProgress implements Progress {
  begin(): ProgressTask {
    return { update() {}, [Symbol.dispose]() {} };
  }

  tell(message: string, level: NoticeLevel = "warn"): void {
    notice(level, message);
  }

  [Symbol.dispose](): void {}
}
