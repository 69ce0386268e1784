import { setImmediate as yieldToEvents } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { gatherEncoded } from "./gather.ts";

const encode = (text: string): Uint8Array => Buffer.from(text);
const texts = (groups: readonly (readonly Uint8Array[])[]) =>
  groups.map((group) => group.map((bytes) => Buffer.from(bytes).toString()));

describe("gathering encoded items", () => {
  it("gives together what comes within a turn of the event loop", async () => {
    async function* items() {
      yield* ["a", "b", "c"];
      await yieldToEvents();
      await yieldToEvents();
      yield* ["d", "e"];
    }
    const groups = await Array.fromAsync(gatherEncoded(items(), encode, 100));
    expect(texts(groups)).toEqual([
      ["a", "b", "c"],
      ["d", "e"],
    ]);
    const none = (async function* (): AsyncGenerator<string> {})();
    expect(await Array.fromAsync(gatherEncoded(none, encode, 100))).toEqual([]);
  });

  it("gives no more bytes at a time than wanted and one item, and asks for one ahead", async () => {
    let asked = 0;
    async function* items() {
      for (;;) {
        asked += 1;
        yield "0123456789";
      }
    }
    const groups = gatherEncoded(items(), encode, 25);
    const first = await groups.next();
    expect(first.value.length).toBe(3);
    for (let turn = 0; turn < 10; turn++) await yieldToEvents();
    expect(asked).toBe(4);
    await groups.return(undefined);
  });

  it("gives what came before a failure, then the failure", async () => {
    const failure = new Error("broken");
    async function* items() {
      yield "a";
      await yieldToEvents();
      await yieldToEvents();
      throw failure;
    }
    const groups = gatherEncoded(items(), encode, 100);
    expect(texts([(await groups.next()).value])).toEqual([["a"]]);
    for (let turn = 0; turn < 5; turn++) await yieldToEvents(); // nobody awaits it yet
    await expect(groups.next()).rejects.toBe(failure);
  });

  it("releases the stream when it is left", async () => {
    let released = 0;
    async function* items() {
      try {
        for (;;) yield "a";
      } finally {
        released += 1;
      }
    }
    for await (const _ of gatherEncoded(items(), encode, 10)) break;
    expect(released).toBe(1);
  });
});
