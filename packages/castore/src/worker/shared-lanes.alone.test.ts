import { expect, it } from "vitest";
import type * as tasks from "../../test/lane-tasks.ts";
import { type Task, taskOf } from "./lane.ts";
import { giveLane, limitLanes, runTask, shareLanes, startLanes, takeLane } from "./lanes.ts";

const BASE = new URL("../../test/lanes.ts", import.meta.url).href;
const ECHO = taskOf(BASE, "lane-tasks", "echo") as Task<(typeof tasks)["echo"]>;

it("lanes that are shared are one thread, where there is but one, and outlive those who took them", async () => {
  limitLanes(1);
  shareLanes();
  const [first, second] = [takeLane(), takeLane()];
  expect(first).toBe(second);
  startLanes(0);
  expect(first.isStarted).toBe(false);
  startLanes(1); // ahead of the first task
  expect(first.isStarted).toBe(true);
  expect(await Promise.all([first.run(ECHO, 1), second.run(ECHO, 2), runTask(ECHO, 3)])).toEqual([
    1, 2, 3,
  ]);
  await giveLane(first);
  expect(await second.run(ECHO, 4)).toBe(4);
});
