import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { unhandledDuring } from "../../test/unhandled.ts";
import { unlessAborted, untilAborted } from "./abort.ts";

const REASON = new Error("enough");

async function failing(): Promise<never> {
  await sleep(1);
  throw new Error("it failed");
}

describe("unlessAborted", () => {
  it("gives what comes, or why it does not", async () => {
    const { signal } = new AbortController();
    expect(await unlessAborted(Promise.resolve(7), signal)).toBe(7);
    expect(await unlessAborted(Promise.resolve(7))).toBe(7);
    await expect(unlessAborted(failing(), signal)).rejects.toThrow("it failed");
    await expect(unlessAborted(failing())).rejects.toThrow("it failed");
  });

  it("leaves no rejection unhandled of what fails when it was cancelled before, or meanwhile", async () => {
    const unhandled = await unhandledDuring(async () => {
      await expect(unlessAborted(failing(), AbortSignal.abort(REASON))).rejects.toBe(REASON);
      const controller = new AbortController();
      const waiting = unlessAborted(failing(), controller.signal);
      controller.abort(REASON);
      await expect(waiting).rejects.toBe(REASON);
    });
    expect(unhandled).toEqual([]);
  });
});

describe("untilAborted", () => {
  it("ends waiting for what never comes", async () => {
    const controller = new AbortController();
    const stream = untilAborted(endless(), controller.signal);
    expect(await stream.next()).toEqual({ done: false, value: 1 });
    const waiting = stream.next();
    controller.abort(REASON);
    await expect(waiting).rejects.toBe(REASON);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  it("ends the stream with its reader, and leaves no rejection unhandled if that fails", async () => {
    let isEnded = false;
    const stream = async function* () {
      try {
        yield 1;
        await sleep(5);
        yield 2;
      } finally {
        isEnded = true;
        await failing();
      }
    };
    const unhandled = await unhandledDuring(async () => {
      for await (const _ of untilAborted(stream(), new AbortController().signal)) break;
      expect(isEnded).toBe(true);
      const controller = new AbortController();
      const cancelled = untilAborted(stream(), controller.signal);
      await cancelled.next();
      const waiting = cancelled.next();
      controller.abort(REASON);
      await expect(waiting).rejects.toBe(REASON);
    });
    expect(unhandled).toEqual([]);
  });
});

async function* endless(): AsyncGenerator<number> {
  yield 1;
  await new Promise(() => undefined);
}
