import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { mapInParallel } from "./parallel.ts";

const failure = new Error("it fails");

describe("mapInParallel", () => {
  it("gives the results in the order of the items, with no more calls at a time than allowed", async () => {
    let running = 0;
    let most = 0;
    const results = await mapInParallel([5, 1, 4, 2, 3], 2, async (item) => {
      most = Math.max(most, ++running);
      for (let i = 0; i < item; i++) await turn();
      running -= 1;
      return item * 10;
    });
    expect(results).toEqual([50, 10, 40, 20, 30]);
    expect(most).toBe(2);
  });

  // A success and a failure in the same turn, in either order and at any distance in microtasks.
  it.each(Array.from({ length: 12 }, (_, i) => i))(
    "rejects with a failure that comes %i microtasks after a success",
    async (distance) => {
      const go = Promise.withResolvers<void>();
      const result = mapInParallel(["succeeds", "fails", "never begins"], 2, async (item) => {
        await go.promise;
        if (item === "succeeds") return;
        for (let i = 0; i < distance; i++) await null;
        throw failure;
      });
      go.resolve();
      await expect(result).rejects.toBe(failure);
    },
  );

  it("begins no further call after a failure, and rejects when those that began have ended", async () => {
    const begun: string[] = [];
    const ended: string[] = [];
    const result = mapInParallel(["slow", "fails", "late"], 2, async (item, { signal }) => {
      begun.push(item);
      if (item === "fails") throw failure;
      for (let i = 0; i < 10; i++) await turn();
      expect(signal.reason).toBe(failure);
      ended.push(item);
    });
    await expect(result).rejects.toBe(failure);
    expect(begun).toEqual(["slow", "fails"]);
    expect(ended).toEqual(["slow"]);
  });

  it("begins no further call when it is cancelled", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const begun: number[] = [];
    const result = mapInParallel(
      [1, 2, 3, 4],
      1,
      async (item) => {
        begun.push(item);
        if (item === 2) controller.abort(reason);
      },
      { signal: controller.signal },
    );
    await expect(result).rejects.toBe(reason);
    expect(begun).toEqual([1, 2]);
  });
});
