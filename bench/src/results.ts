import type { Usage } from "./measure.ts";
import type { ThreadTimes } from "./phases.ts";
import { rowName, type Step, type Subject, type Work, type Workload } from "./subject.ts";

/** One timed run of one step. */
export interface Sample {
  /** In which round, from 1 on. */
  readonly round: number;
  readonly wallSeconds: number;
  /** Of the program and the processes that it started. */
  readonly program: Usage;
  readonly daemon?: Usage;
  /** What the folder of the run takes of the disk afterwards. */
  readonly diskBytes: number;
  readonly work?: Work;
}

/** What came of one step. */
export interface Row {
  readonly name: string;
  readonly workload: Workload;
  readonly subject: Subject;
  readonly step: Step;
  /** One for each round that it did not fail in. */
  readonly samples: Sample[];
  /** Where its time went; empty where that is not known. */
  phases: readonly ThreadTimes[];
  /** Why there are no samples, or fewer than rounds. */
  problem?: string;
}

/** Rows in the order of the workloads, by name. */
export type Results = ReadonlyMap<string, Row>;

/** Makes a row, without samples, for every step whose name matches. */
export function emptyResults(workloads: readonly Workload[], only: RegExp): Results {
  const rows = new Map<string, Row>();
  for (const workload of workloads) {
    for (const subject of workload.subjects) {
      for (const step of subject.steps) {
        const name = rowName(workload, subject, step);
        if (only.test(name)) {
          rows.set(name, { name, workload, subject, step, samples: [], phases: [] });
        }
      }
    }
  }
  return rows;
}
