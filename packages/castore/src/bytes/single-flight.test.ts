import { describe, expect, it } from "vitest";
import { SingleFlight } from "./single-flight.ts";

/** Work that ends when it is told to. */
function controlled() {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const signals: AbortSignal[] = [];
  const work = (signal: AbortSignal) => {
    signals.push(signal);
    signal.addEventListener("abort", () => reject(signal.reason));
    return promise;
  };
  return { work, resolve, reject, signals };
}

const never = () => Promise.reject(new Error("it was started before"));

describe("SingleFlight", () => {
  it("does work once for all who ask meanwhile, and anew afterwards", async () => {
    const flights = new SingleFlight<string>();
    const first = controlled();
    const asked = [flights.run("key", first.work), flights.run("key", never)];
    const other = flights.run("other", async () => "something else");
    first.resolve("done");
    expect(await Promise.all([...asked, other])).toEqual(["done", "done", "something else"]);
    expect(await flights.run("key", async () => "again")).toBe("again");
  });

  it("tells everybody when it fails, and starts anew afterwards", async () => {
    const flights = new SingleFlight<string>();
    const first = controlled();
    const asked = [flights.run("key", first.work), flights.run("key", never)];
    const failure = new Error("it failed");
    first.reject(failure);
    for (const result of asked) await expect(result).rejects.toBe(failure);
    expect(await flights.run("key", async () => "again")).toBe("again");
  });

  it("goes on when some who wait are cancelled, and is given up when all are", async () => {
    const flights = new SingleFlight<string>();
    const first = controlled();
    const [one, two] = [new AbortController(), new AbortController()];
    const asked = [one, two].map(({ signal }) => flights.run("key", first.work, { signal }));
    one.abort(new Error("one"));
    await expect(asked[0]).rejects.toThrow("one");
    expect(first.signals.map(({ aborted }) => aborted)).toEqual([false]);
    two.abort(new Error("two"));
    await expect(asked[1]).rejects.toThrow("two");
    expect(first.signals.map(({ aborted }) => aborted)).toEqual([true]);
    expect(await flights.run("key", async () => "again")).toBe("again");
  });

  it("starts nothing for whoever is cancelled before", async () => {
    const flights = new SingleFlight<string>();
    const signal = AbortSignal.abort(new Error("before"));
    await expect(flights.run("key", never, { signal })).rejects.toThrow("before");
  });
});
