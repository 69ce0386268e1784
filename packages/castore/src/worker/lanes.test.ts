import { describe, expect, it } from "vitest";
import type * as tasks from "../../test/lane-tasks.ts";
import { CastoreError } from "../model/errors.ts";
import { Lane, type LaneContext, type Task, taskOf } from "./lane.ts";
import { giveLane, laneCount, laneLoad, runTask, takeLane } from "./lanes.ts";

const BASE = new URL("../../test/lanes.ts", import.meta.url).href;
const task = <Name extends keyof typeof tasks>(name: Name) =>
  taskOf(BASE, "lane-tasks", name) as Task<(typeof tasks)[Name]>;
const ECHO = task("echo");

describe("a lane", () => {
  it("runs functions, and does not start before that", async () => {
    await using lane = new Lane();
    expect(lane.isStarted).toBe(false);
    expect(await lane.run(ECHO, { value: 7 })).toEqual({ value: 7 });
    expect(lane.isStarted).toBe(true);
    expect(lane.load).toBe(0);
  });

  it("moves what is transferred", async () => {
    await using lane = new Lane();
    const { bytes, lengthAfter } = await lane.run(task("give"), 10);
    expect(bytes).toEqual(new Uint8Array(10).fill(7));
    await expect(lane.run(task("lengthOfGiven"), undefined as never)).resolves.toBe(0);
    expect(lengthAfter).toBe(10); // before it was moved
  });

  it("hands CastoreErrors on with their code, and tells where others came from", async () => {
    await using lane = new Lane();
    const failing = lane.run(task("fail"), "data_loss");
    await expect(failing).rejects.toBeInstanceOf(CastoreError);
    await expect(failing).rejects.toMatchObject({ code: "data_loss", message: "it is lost" });
    await expect(lane.run(task("crash"), undefined as never)).rejects.toThrow(/lane-tasks/);
    expect(await lane.run(ECHO, 1)).toBe(1);
  });

  it("rejects what it was doing when its thread ends, and starts another", async () => {
    await using lane = new Lane();
    await expect(lane.run(task("exit"), undefined as never)).rejects.toThrow("thread ended");
    expect(await lane.run(ECHO, 1)).toBe(1);
  });

  it("rejects what it was doing when its thread runs out of memory", async () => {
    await using lane = new Lane();
    const running = lane.run(task("fillHeap"), undefined as never);
    await expect(running).rejects.toMatchObject({ code: "ERR_WORKER_OUT_OF_MEMORY" });
    expect(await lane.run(ECHO, 1)).toBe(1);
  });
});

describe("a lane that is given back", () => {
  it("goes to the next who takes one, with its thread", async () => {
    const lane = takeLane();
    await lane.run(ECHO, 1);
    await giveLane(lane);
    const next = takeLane();
    expect(next).toBe(lane);
    expect(next.isStarted).toBe(true);
    expect(takeLane()).not.toBe(next);
    await giveLane(next);
  });

  it("ends where enough of them are idle", async () => {
    const lanes = Array.from({ length: 4 }, takeLane);
    await Promise.all(lanes.map((lane) => lane.run(ECHO, 1)));
    for (const lane of lanes) await giveLane(lane);
    await expect.poll(() => lanes.map(({ isStarted }) => isStarted)).toContain(false);
  });
});

describe("the lanes of a process", () => {
  it("run more tasks than there are lanes", async () => {
    const inputs = Array.from({ length: 50 }, (_, i) => i);
    expect(await Promise.all(inputs.map((i) => runTask(ECHO, i)))).toEqual(inputs);
  });

  it("leave work to the calling thread where that is offered and they have enough", async () => {
    let here = 0;
    const echo = (input: unknown, _: LaneContext) => {
      here += 1;
      return input;
    };
    const slow: Promise<void>[] = [];
    while (laneLoad().waiting === 0) slow.push(runTask(task("wait"), 300));
    const echoes = [1, 2, 3].map((i) => runTask(ECHO, i, { here: echo }));
    expect(await Promise.all(echoes)).toEqual([1, 2, 3]);
    expect(here).toBe(3); // also those behind a task that waits for a lane
    await Promise.all(slow);
  });

  it("leave a short task to the calling thread unless one of them has nothing to do", async () => {
    const echo = (input: unknown, _: LaneContext) => input;
    let here = 0;
    const count = (input: unknown, context: LaneContext) => {
      here += 1;
      return echo(input, context);
    };
    await runTask(ECHO, 0); // one has started
    expect(await runTask(ECHO, 1, { here: count, isShort: true })).toBe(1);
    expect(here).toBe(0);
    const slow = Array.from({ length: laneCount() }, () => runTask(task("wait"), 300));
    expect(await runTask(ECHO, 2, { here: count, isShort: true })).toBe(2);
    expect(here).toBe(1);
    await Promise.all(slow);
  });

  it("go on after failures, in a lane and in the calling thread", async () => {
    const fail = task("fail");
    const here = () => {
      throw new CastoreError("not_found", "nothing here");
    };
    const failing = Array.from({ length: 20 }, () => runTask(fail, "data_loss", { here }));
    for (const outcome of await Promise.allSettled(failing)) {
      expect(outcome.status).toBe("rejected");
    }
    expect(await runTask(ECHO, 1)).toBe(1);
  });
});
