import type { ImportProgress } from "@tvix/castore";
import type { NoticeLevel } from "./notices.ts";

/** Shows on stderr how far a command is. Disposing removes what is shown. */
export interface Progress extends Disposable {
  /** Whether anything but notices is shown. */
  readonly isShown: boolean;

  /** Adds to what is to be done: things, and bytes of their contents. */
  expect(more: { readonly things?: number; readonly bytes?: number }): void;

  /** Begins to show something that is being done. */
  begin(what: string): ProgressTask;

  /** Writes a notice. Default: a warning. */
  tell(message: string, level?: NoticeLevel): void;
}

/** Something that is being done. Disposing ends it, done or not. */
export interface ProgressTask extends Disposable {
  /** Tells that it is done, in a line of its own where progress is shown. */
  finish(): void;

  update(
    progress: Pick<ImportProgress, "entries" | "bytes"> & Partial<Pick<ImportProgress, "newBytes">>,
  ): void;
}
