import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram } from "@tvix/conformance/find-program";
import { startDaemon } from "./daemon.ts";
import { diskBytes, runCommand, runMeasured } from "./measure.ts";
import { readPhases } from "./phases.ts";
import { emptyResults, type Results, type Row } from "./results.ts";
import { type Place, rowName, type Subject, type Work, type Workload } from "./subject.ts";
import { warm } from "./trees/tree.ts";

/** What {@link runWorkloads} is told. */
export interface RunOptions {
  /** A folder to make the folders of runs in. */
  folder: string;
  rounds: number;
  /** Which rows are wanted, by name. What goes before a wanted step is run, but not recorded. */
  only: RegExp;
  /** Whether CPU profiles are taken in one more round. */
  profile: boolean;
  /** Is told of each thing that is begun. */
  onProgress: (what: string) => void;
}

/** Runs the subjects of each workload in turn, as many rounds as asked for. */
export async function runWorkloads(
  workloads: readonly Workload[],
  options: RunOptions,
): Promise<Results> {
  const results = emptyResults(workloads, options.only);
  for (const workload of workloads) await new WorkloadRun(workload, results, options).run();
  return results;
}

class WorkloadRun {
  readonly #workload: Workload;
  readonly #results: Results;
  readonly #options: RunOptions;
  readonly #kept = new Map<Subject, Place>();

  constructor(workload: Workload, results: Results, options: RunOptions) {
    this.#workload = workload;
    this.#results = results;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { rounds, profile, onProgress } = this.#options;
    const subjects = this.#workload.subjects.filter((subject) => this.#isWanted(subject));
    try {
      for (let round = 1; round <= rounds; round++) {
        if (subjects.length > 0) await Promise.all(this.#workload.trees.map(warm));
        for (const subject of subjects) {
          onProgress(`round ${round} of ${rounds}: ${this.#workload.name}: ${subject.name}`);
          const done = (row: Row) => row.samples.at(-1)?.round === round;
          await this.#guard(subject, done, (place) => this.#time(subject, place, round));
        }
      }
      for (const subject of profile ? subjects.filter(({ profiled }) => profiled) : []) {
        onProgress(`profile: ${this.#workload.name}: ${subject.name}`);
        const done = (row: Row) => row.phases.length > 0;
        await this.#guard(subject, done, (place) => this.#profile(subject, place));
      }
    } finally {
      for (const place of this.#kept.values()) await discard(place);
    }
  }

  /** Whether one of its rows is wanted and it can run. Says in its rows why it cannot. */
  #isWanted(subject: Subject): boolean {
    const rows = this.#rowsOf(subject);
    const missing = subject.needs.filter((name) => findProgram(name) === undefined);
    if (missing.length > 0) for (const row of rows) row.problem = "not installed";
    return rows.length > 0 && missing.length === 0;
  }

  /**
   * Runs something in the folder of a subject. A failure is told in those of its rows that are not done
   * then, and stops no other subject.
   */
  async #guard(
    subject: Subject,
    done: (row: Row) => boolean,
    body: (place: Place) => Promise<void>,
  ): Promise<void> {
    let place: Place | undefined;
    try {
      place = this.#kept.get(subject) ?? (await this.#makePlace(subject));
      await body(place);
    } catch (error) {
      this.#options.onProgress(`failed: ${this.#workload.name}: ${subject.name}: ${error}`);
      for (const row of this.#rowsOf(subject)) if (!done(row)) row.problem = "failed";
    } finally {
      if (place !== undefined && !this.#kept.has(subject)) await discard(place);
    }
  }

  async #time(subject: Subject, place: Place, round: number): Promise<void> {
    await using daemon = subject.daemon && (await startDaemon(subject.daemon(place), place));
    for (const step of this.#neededSteps(subject)) {
      // So that nobody pays for what was written before.
      await runCommand({ argv: ["sync", "--file-system", place.folder] });
      const { stdout, wallSeconds, ...program } = await runMeasured(step.command(place));
      const usage = await daemon?.usage();
      this.#rowOf(subject, step)?.samples.push({
        round,
        wallSeconds,
        program,
        ...(usage && { daemon: usage }),
        diskBytes: await diskBytes(place.folder),
        ...(step.reportsWork && { work: lastLine(stdout) }),
      });
    }
  }

  /** As {@link #time}, with a daemon of its own for each step, as it writes its profiles at its end. */
  async #profile(subject: Subject, place: Place): Promise<void> {
    for (const step of this.#neededSteps(subject)) {
      const folder = await mkdtemp(join(tmpdir(), "tvix-bench-"));
      const profiles = { program: join(folder, "program"), daemon: join(folder, "daemon") };
      try {
        await Promise.all(Object.values(profiles).map((path) => mkdir(path)));
        {
          await using _daemon =
            subject.daemon && (await startDaemon(subject.daemon(place), place, profiles.daemon));
          await runMeasured(step.command(place), profiles.program);
        }
        const row = this.#rowOf(subject, step);
        if (row) row.phases = await readPhases(profiles);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }
  }

  async #makePlace(subject: Subject): Promise<Place> {
    await mkdir(this.#options.folder, { recursive: true });
    const folder = await mkdtemp(join(this.#options.folder, "run-"));
    // Paths of sockets are short: not in the folder, which may be deep.
    const place = { folder, socket: `${await mkdtemp(join(tmpdir(), "tvix-bench-"))}/socket` };
    if (subject.keepsFolder) this.#kept.set(subject, place);
    try {
      await subject.prepare?.(place);
    } catch (error) {
      this.#kept.delete(subject);
      await discard(place);
      throw error;
    }
    return place;
  }

  /** The wanted steps of a subject, and those before them. */
  #neededSteps(subject: Subject): Subject["steps"] {
    const last = subject.steps.findLastIndex((step) => this.#rowOf(subject, step) !== undefined);
    return subject.steps.slice(0, last + 1);
  }

  #rowOf(subject: Subject, step: Subject["steps"][number]): Row | undefined {
    return this.#results.get(rowName(this.#workload, subject, step));
  }

  #rowsOf(subject: Subject): Row[] {
    return subject.steps
      .map((step) => this.#rowOf(subject, step))
      .filter((row) => row !== undefined);
  }
}

async function discard({ folder, socket }: Place): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await rm(join(socket, ".."), { recursive: true, force: true });
}

function lastLine(stdout: string): Work {
  return JSON.parse(stdout.trimEnd().split("\n").at(-1)!);
}
