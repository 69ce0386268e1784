import type { ImportProgress } from "@tvix/castore";
import type { PathInfo } from "@tvix/store";
import type { Progress } from "../terminal/progress-contract.ts";
import { reportImport } from "./import-report.ts";
import type { Job } from "./jobs.ts";

/** Options of {@link importJob}. */
export interface ImportJobOptions {
  readonly progress: Progress;
  /** Whether the result is an object of JSON. Default: false, the store path. */
  readonly json?: boolean | undefined;
}

/** What stores something; it is told how to report its running totals. */
export type ImportAction = (options: {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ImportProgress) => void;
}) => Promise<PathInfo>;

/**
 * Returns the job that stores something, shows how far it is, and returns the line about it.
 *
 * @param source what it is called
 */
export function importJob(
  source: string,
  action: ImportAction,
  { progress, json }: ImportJobOptions,
): Job {
  return {
    run: async ({ signal }) => {
      using task = progress.begin(source);
      let last: ImportProgress = { entries: 0, bytes: 0, newBytes: undefined };
      const onProgress = (now: ImportProgress) => {
        last = now;
        task.update(now);
      };
      const pathInfo = await action({ signal, onProgress });
      task.finish();
      if (json) return reportImport(source, { pathInfo, progress: last });
      return `${pathInfo.storePath.toAbsolutePath()}\n`;
    },
  };
}
