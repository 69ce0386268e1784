import { availableParallelism } from "node:os";
import { setImmediate as yieldToEvents } from "node:timers/promises";
import { Lane, type LaneContext, type Task } from "./lane.ts";

/** How many tasks a lane has at most: while one runs, the next is there already, also where one of them is a commit. */
const TASKS_PER_LANE = 3;

/** One for each core but that of the calling thread. Each takes ten megabytes, and some more at work. */
let count = Math.max(availableParallelism() - 1, 1);
let lanes: Lane[] | undefined;
/** Lanes that have started and belong to nobody: to start another takes 0.1 s of a core. */
const idle: Lane[] = [];
const MAX_IDLE = 2;
/** Whether those who take a lane may get one that others use. */
let areShared = false;
/** Whether a task runs in this thread, or is about to. */
let isRunningHere = false;
/** What waits for a lane, the first come first. */
const waiting: { readonly wake: () => void; readonly mayRunHere: boolean }[] = [];

/**
 * Starts the threads that all services and imports of this process share, which takes a while, ahead of the first work for
 * them. Not needed: they start with that.
 *
 * @param atMost how many are started. Default: all
 */
export function startLanes(atMost: number = Number.POSITIVE_INFINITY): void {
  for (const lane of allLanes().slice(0, atMost)) lane.start();
}

/** Sets how many lanes there are, before the first of them starts. */
export function limitLanes(limit: number): void {
  if (lanes !== undefined) throw new Error("expected no lane to run yet");
  count = limit;
}

/**
 * Has those who take a lane use that of all services and imports, where there is but one: another thread would take some 15 MB.
 * A task then waits for those before it, some ten milliseconds each, whoever gave them.
 */
export function shareLanes(): void {
  areShared = true;
}

/** Returns how many lanes there are. */
export function laneCount(): number {
  return count;
}

/** Returns how many tasks the lanes have, those that run in this thread excluded, and how many wait for one. */
export function laneLoad(): { readonly running: number; readonly waiting: number } {
  const running = (lanes ?? []).reduce((sum, { load }) => sum + load, 0);
  return { running, waiting: waiting.length };
}

/** Options of {@link runTask}. */
export interface RunTaskOptions<Run> {
  /**
   * The function of the task itself: where the lanes have enough to do, or none of them is ready, it runs in this thread,
   * whose event loop it then holds up. Default: the task waits for a lane.
   */
  readonly here?: Run;
  /** The task is small, or everything else waits for it: with `here`, it runs in this thread at once. Default: false. */
  readonly isNext?: boolean | undefined;
  /** The task takes a millisecond: with `here`, it runs in this thread unless a lane has nothing to do. Default: false. */
  readonly isShort?: boolean | undefined;
  /** Buffers of the input that are moved to the thread of a lane, not copied. Default: none. */
  readonly moved?: readonly ArrayBuffer[];
}

/** Runs a task in the lane that has least to do, as {@link Lane.run} says. */
export async function runTask<Run extends (input: never, context: LaneContext) => unknown>(
  task: Task<Run>,
  input: Parameters<Run>[0],
  { here, isNext, isShort, moved }: RunTaskOptions<Run> = {},
): Promise<Awaited<ReturnType<Run>>> {
  if (here !== undefined && (isNext || (isShort && !hasIdleLane())))
    return await runHere(here, input);
  const findLane = here === undefined ? freeLane : readyLane;
  let lane = findLane();
  while (lane === undefined) {
    if (here !== undefined && !isRunningHere) {
      isRunningHere = true;
      await yieldToEvents();
      lane = findLane();
      try {
        if (lane === undefined) return await runHere(here, input);
      } finally {
        isRunningHere = false;
        if (lane === undefined) offerThisThread();
      }
    } else {
      const mayRunHere = here !== undefined;
      await new Promise<void>((wake) => waiting.push({ wake, mayRunHere }));
      lane = findLane();
    }
  }
  return await lane.run(task, input, moved);
}

async function runHere<Run extends (input: never, context: LaneContext) => unknown>(
  run: Run,
  input: Parameters<Run>[0],
): Promise<Awaited<ReturnType<Run>>> {
  const context: LaneContext = { transfer: () => undefined }; // the result stays in this thread
  return (await run(input, context)) as Awaited<ReturnType<Run>>;
}

/** Runs a task in each lane that has started, and waits for all. */
export async function runInAll<Run extends (input: never, context: LaneContext) => unknown>(
  task: Task<Run>,
  input: Parameters<Run>[0],
): Promise<void> {
  await Promise.all(allLanes().map((lane) => (lane.isStarted ? lane.run(task, input) : undefined)));
}

/**
 * Returns a lane for the caller, who gives it back with {@link giveLane}. Nobody else uses it, unless lanes are shared
 * ({@link shareLanes}).
 */
export function takeLane(): Lane {
  if (areShared && count === 1) return allLanes()[0]!;
  return idle.pop() ?? new Lane();
}

/** Takes back a lane, which has nothing to do for the caller. The next who needs one gets it, or it ends. */
export async function giveLane(lane: Lane): Promise<void> {
  if (lanes?.includes(lane)) return;
  if (lane.isStarted && idle.length < MAX_IDLE) idle.push(lane);
  else await lane[Symbol.asyncDispose]();
}

function allLanes(): readonly Lane[] {
  lanes ??= Array.from({ length: count }, () => new Lane(offerLane));
  return lanes;
}

/** Wakes as many tasks as a lane has room for. */
function offerLane({ load }: Lane): void {
  for (const { wake } of waiting.splice(0, Math.max(TASKS_PER_LANE - load, 0))) wake();
}

/** Wakes the first of the tasks that may run in this thread. */
function offerThisThread(): void {
  const at = waiting.findIndex(({ mayRunHere }) => mayRunHere);
  if (at >= 0) waiting.splice(at, 1)[0]!.wake();
}

/** Returns the lane with the fewest tasks; `undefined` where all have enough. */
function freeLane(): Lane | undefined {
  return leastLoaded(allLanes());
}

/** Returns the lane with the fewest tasks of those that are ready, and starts the others. */
function readyLane(): Lane | undefined {
  for (const lane of allLanes()) lane.start();
  return leastLoaded(allLanes().filter(({ isReady }) => isReady));
}

function hasIdleLane(): boolean {
  return allLanes().some(({ isReady, load }) => isReady && load === 0);
}

function leastLoaded(lanes: readonly Lane[]): Lane | undefined {
  let least: Lane | undefined;
  for (const lane of lanes) if (lane.load < (least?.load ?? TASKS_PER_LANE)) least = lane;
  return least;
}
