import { availableParallelism } from "node:os";
import type { Results, Sample } from "./results.ts";
import { type Spread, spreadOf } from "./spread.ts";
import { FLOOR } from "./subjects/floor.ts";

/** A number that says how good we are. */
interface Goal {
  readonly name: string;
  /** What it should be, in words. */
  readonly target: string;
  /** One value for each round; `undefined` if a row that it is made of was not measured. */
  values(results: Results): readonly number[] | undefined;
  /** Whether a median is good enough. Default: nothing is asked. */
  met?(median: number): boolean;
}

/** What became of a goal. */
export interface GoalOutcome {
  readonly goal: Goal;
  /** `undefined` if it was not measured. */
  readonly spread: Spread | undefined;
}

const DIRECT = "tvix-store import, direct, first";
const DAEMON = "tvix-store import, daemon, first";
const BLOBS = "grpc: tvix-store daemon";
const MB = 1e6;

const GOALS: readonly Goal[] = [
  ratio("small import / restic", `small: ${DIRECT}`, "small: restic backup, first", 0.5),
  ratio("small import / tar, zstd", `small: ${DIRECT}`, "small: tar | zstd -1 -T2, first", 2),
  ratio("large import / restic", `large: ${DIRECT}`, "large: restic backup, first", 0.33),
  ratio("large import / tar, zstd", `large: ${DIRECT}`, "large: tar | zstd -1 -T2, first", 1.3),
  ratio("small import, daemon / direct", `small: ${DAEMON}`, `small: ${DIRECT}`, 1.5),
  ratio("large import, daemon / direct", `large: ${DAEMON}`, `large: ${DIRECT}`, 1.5),
  {
    name: "memory of an import, MB",
    target: "at most 256",
    values: peakMemory,
    met: (median) => median <= 256,
  },
  rate("gRPC Read of 256 MB, MB/s", `${BLOBS}, Read one of 256 MB`, 800, bytesPerSecond),
  rate("gRPC Put of 256 MB, MB/s", `${BLOBS}, Put one of 256 MB`, 500, bytesPerSecond),
  rate("gRPC Put of 15 KB, blobs/s", `${BLOBS}, Put 15 KB`, 4500, countPerSecond),
  rate("NAR render, small, MB/s", "small: NAR render, direct, to a sink", 350, bytesPerSecond),
  rate("NAR render, large, MB/s", "large: NAR render, direct, to a sink", 800, bytesPerSecond),
  efficiency("small"),
  efficiency("large"),
];

/** Works out every goal. */
export function goalOutcomes(results: Results): GoalOutcome[] {
  return GOALS.map((goal) => {
    const values = goal.values(results);
    return { goal, spread: values?.length ? spreadOf(values) : undefined };
  });
}

/** Wall time by wall time, each round by itself: what slows down the machine slows down both. */
function ratio(name: string, ours: string, theirs: string, limit: number): Goal {
  return {
    name,
    target: `at most ${limit}`,
    values: (results) => pairs(results, ours, theirs, (a, b) => a.wallSeconds / b.wallSeconds),
    met: (median) => median <= limit,
  };
}

function rate(name: string, row: string, limit: number, of: (sample: Sample) => number): Goal {
  return {
    name,
    target: `at least ${limit}`,
    values: (results) => results.get(row)?.samples.map(of),
    met: (median) => median >= limit,
  };
}

/** The time of the primitives alone, shared by all cores without loss, by that of the whole import. */
function efficiency(tree: string): Goal {
  const cores = availableParallelism();
  return {
    name: `${tree} import, efficiency: primitives / ${cores} cores / wall`,
    target: "1 is ideal",
    values: (results) =>
      pairs(
        results,
        `${tree}: ${FLOOR}, first`,
        `${tree}: ${DIRECT}`,
        (floor, whole) => floor.work!.seconds / cores / whole.wallSeconds,
      ),
  };
}

/** The most that the largest process had, in any of our imports of a round. */
function peakMemory(results: Results): readonly number[] {
  const samples = [...results.values()]
    .filter(({ name }) => name.includes(": tvix-store import, "))
    .flatMap((row) => row.samples);
  const byRound = Object.values(Object.groupBy(samples, ({ round }) => round));
  return byRound.map((round = []) => {
    const peaks = round.flatMap(({ program, daemon }) => [
      program.peakBytes,
      daemon?.peakBytes ?? 0,
    ]);
    return Math.max(...peaks) / MB;
  });
}

function pairs(
  results: Results,
  first: string,
  second: string,
  of: (first: Sample, second: Sample) => number,
): readonly number[] | undefined {
  const [a, b] = [results.get(first)?.samples, results.get(second)?.samples];
  if (a === undefined || b === undefined) return undefined;
  return a.flatMap((sample) => {
    const other = b.find(({ round }) => round === sample.round);
    return other ? [of(sample, other)] : [];
  });
}

function bytesPerSecond({ work }: Sample): number {
  return work!.bytes! / work!.seconds / MB;
}

function countPerSecond({ work }: Sample): number {
  return work!.count! / work!.seconds;
}
