import { Option } from "commander";

/** Options of a command that shows how far it is. */
export interface ProgressOptions {
  /** How progress is shown; `false` after `--no-progress`. Default: `auto`. */
  progress?: "auto" | "plain" | "none" | false;
  /** Whether to write nothing but errors on stderr. Default: false. */
  quiet?: boolean;
}

/** Returns the options for how progress is shown. */
export function progressOptions(): Option[] {
  return [
    new Option(
      "--progress <how>",
      "auto: a line that changes if stderr is a terminal; plain: a line every five seconds, for logs; none",
    )
      .choices(["auto", "plain", "none"])
      .default("auto"),
    new Option("--no-progress", "as --progress none"),
  ];
}
