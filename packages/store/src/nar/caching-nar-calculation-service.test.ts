import { EventEmitter, once } from "node:events";
import {
  type AbortOptions,
  blake3Digest,
  CastoreError,
  type Node,
  symlinkTarget,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { CachingNarCalculationService } from "./caching-nar-calculation-service.ts";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Answers, or fails, when it is told to, and notes what it was asked. */
class SlowNarCalculationService implements NarCalculationService {
  readonly asked: { node: Node; signal: AbortSignal | undefined }[] = [];
  readonly #turn = new EventEmitter();
  #isReady = false;

  async calculateNar(node: Node, options?: AbortOptions): Promise<CalculatedNar> {
    this.asked.push({ node, signal: options?.signal });
    const count = this.asked.length;
    if (!this.#isReady) await once(this.#turn, "turn"); // rejects with an "error"
    return { narSize: 120n, narSha256: new Uint8Array(32).fill(count) };
  }

  answer(): void {
    this.#isReady = true;
    this.#turn.emit("turn");
  }

  fail(error: Error): void {
    this.#turn.emit("error", error);
  }
}

const digest = blake3Digest(Buffer.from("root"));
const ROOT: Node = { type: "directory", digest, size: 3n };

function setUp(capacity?: number) {
  const inner = new SlowNarCalculationService();
  return {
    inner,
    service: new CachingNarCalculationService({ inner, ...(capacity && { capacity }) }),
  };
}

describe("CachingNarCalculationService", () => {
  it("computes once what many ask for at the same time, and never again", async () => {
    const { inner, service } = setUp();
    const all = Array.from({ length: 10 }, () => service.calculateNar({ ...ROOT }));
    inner.answer();
    const found = await Promise.all(all);
    found.push(await service.calculateNar(ROOT));
    expect(inner.asked).toHaveLength(1);
    for (const one of found) expect(one).toEqual(found[0]);
    found[0]!.narSha256.fill(99);
    expect((await service.calculateNar(ROOT)).narSha256[0]).toBe(1);
  });

  it("does not mistake one root for another", async () => {
    const { inner, service } = setUp();
    inner.answer();
    const nodes: Node[] = [
      ROOT,
      { ...ROOT, size: 4n },
      { type: "file", digest, size: 3n, executable: false },
      { type: "file", digest, size: 3n, executable: true },
      { type: "symlink", target: symlinkTarget("a") },
      { type: "symlink", target: symlinkTarget("b") },
    ];
    for (const node of nodes) await service.calculateNar(node);
    expect(inner.asked.map(({ node }) => node)).toEqual(nodes);
  });

  it("forgets what was not asked for for long", async () => {
    const { inner, service } = setUp(1);
    inner.answer();
    for (const size of [1n, 2n, 1n]) await service.calculateNar({ ...ROOT, size });
    expect(inner.asked).toHaveLength(3);
  });

  it("remembers no failure", async () => {
    const { inner, service } = setUp();
    const failed = service.calculateNar(ROOT);
    inner.fail(new CastoreError("not_found", "it is missing"));
    await expect(failed).rejects.toMatchObject({ code: "not_found" });
    const again = service.calculateNar(ROOT);
    inner.answer();
    expect((await again).narSize).toBe(120n);
  });

  it("goes on while somebody waits, and no longer", async () => {
    const { inner, service } = setUp();
    const callers = [new AbortController(), new AbortController()];
    const calls = callers.map(({ signal }) => service.calculateNar(ROOT, { signal }));
    const reason = new Error("enough");
    callers[0]!.abort(reason);
    await expect(calls[0]).rejects.toBe(reason);
    expect(inner.asked[0]!.signal!.aborted).toBe(false);
    callers[1]!.abort(reason);
    await expect(calls[1]).rejects.toBe(reason);
    expect(inner.asked[0]!.signal!.aborted).toBe(true);
    const anew = service.calculateNar(ROOT);
    inner.answer();
    await anew;
    expect(inner.asked).toHaveLength(2);
    const before = { signal: AbortSignal.abort(reason) };
    await expect(service.calculateNar(ROOT, before)).rejects.toBe(reason);
  });
});
