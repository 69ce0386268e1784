import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FailureLimit, sourceOf } from "./failure-limit.ts";

describe("FailureLimit", () => {
  beforeEach(() => vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => vi.useRealTimers());

  it("allows some failures at once, and then one after each pause", () => {
    const limit = new FailureLimit({ burst: 3, recoverMs: 1_000 });
    for (let i = 0; i < 3; i++) {
      expect(limit.waitMs("a")).toBe(0);
      limit.count("a");
    }
    expect(limit.waitMs("a")).toBe(1_000);
    expect(limit.waitMs("b")).toBe(0);
    vi.advanceTimersByTime(1_000);
    expect(limit.waitMs("a")).toBe(0);
    limit.count("a");
    expect(limit.waitMs("a")).toBe(1_000);
    vi.advanceTimersByTime(3_000);
    for (let i = 0; i < 3; i++) {
      expect(limit.waitMs("a")).toBe(0);
      limit.count("a");
    }
  });

  it("forgets the source that failed longest ago when there are too many", () => {
    const limit = new FailureLimit({ burst: 1, maxSources: 2 });
    for (const source of ["a", "b", "c"]) limit.count(source);
    expect(limit.waitMs("a")).toBe(0);
    expect(limit.waitMs("b")).toBeGreaterThan(0);
    expect(limit.waitMs("c")).toBeGreaterThan(0);
  });
});

describe("sourceOf", () => {
  it.each([
    ["192.0.2.1:4711", "192.0.2.1"],
    ["unix", "unix"],
    ["[::ffff:192.0.2.1]:4711", "192.0.2.1"],
    ["[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2::/64"],
    ["[2001:db8::1]:4711", "2001:db8:0:0::/64"],
    ["[2001::1:2:3:4:5:6]:4711", "2001:0:1:2::/64"],
    ["[::1]:4711", "0:0:0:0::/64"],
    ["[fe80::1%eth0]:4711", "fe80:0:0:0::/64"],
  ])("of %s is %s", (peer, source) => {
    expect(sourceOf(peer)).toBe(source);
  });
});
