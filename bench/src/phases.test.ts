import { describe, expect, it } from "vitest";
import { phaseSeconds } from "./phases.ts";

const node = (id: number, functionName: string, url = "", children: number[] = []) => ({
  id,
  callFrame: { functionName, url },
  children,
});

/** A profile in which each function but the first took a millisecond for each place in its list. */
function seconds(...called: readonly ReturnType<typeof node>[]) {
  const nodes = [node(1, "(root)", "", called.map(({ id }) => id).slice(0, 1)), ...called];
  const samples = called.map(({ id }) => id);
  return phaseSeconds({ nodes, samples, timeDeltas: samples.map(() => 1000) });
}

describe("phases of a profile", () => {
  it("sorts functions by their name and file", () => {
    const sorted = seconds(
      node(2, "(idle)", "", [3]),
      node(3, "update", "node:internal/crypto/hash", [4]),
      node(4, "fdatasync", "", [5]),
      node(5, "push", "file:///src/fastcdc/chunker.ts"),
    );
    expect(sorted).toMatchObject({ wait: 0.001, "SHA-256": 0.001, write: 0.001, cut: 0.001 });
  });

  it("counts a function without a rule as what called it", () => {
    const sorted = seconds(
      node(2, "zstdCompressSync", "node:zlib", [3]),
      node(3, "concat", "node:buffer", [4]),
      node(4, "read", ""),
    );
    expect(sorted).toMatchObject({ compress: 0.002, read: 0.001, other: 0 });
  });

  it("counts what nothing is known of as other", () => {
    expect(seconds(node(2, "main", "file:///src/main.ts"))).toMatchObject({ other: 0.001 });
  });
});
