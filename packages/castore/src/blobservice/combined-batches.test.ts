import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { unhandledDuring } from "../../test/unhandled.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService } from "./blob-service.ts";
import type { ChunkMeta } from "./chunk-list.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { putBlob } from "./put-blob.ts";

const TEXTS = ["one", "two", "three", "four"];
const [ONE, TWO, THREE, FOUR] = TEXTS.map((text) => ({
  digest: blake3Digest(Buffer.from(text)),
  size: text.length,
})) as [ChunkMeta, ChunkMeta, ChunkMeta, ChunkMeta];

/** Answers when it is told to, and notes what it was asked. */
class ControlledBlobService extends MemoryBlobService {
  readonly asked: (readonly ChunkMeta[])[] = [];
  readonly signals: AbortSignal[] = [];
  readonly #answer = Promise.withResolvers<void>();

  override async readMany(blobs: readonly ChunkMeta[], options?: AbortOptions) {
    this.asked.push(blobs);
    this.signals.push(options!.signal!);
    await this.#answer.promise;
    return await super.readMany(blobs);
  }

  answer(): void {
    this.#answer.resolve();
  }

  fail(error: unknown): void {
    this.#answer.reject(error);
  }
}

async function withFar(): Promise<{ far: ControlledBlobService; near: BlobService }> {
  const far = new ControlledBlobService();
  for (const text of TEXTS) await putBlob(far, Buffer.from(text));
  return { far, near: new MemoryBlobService() };
}

const textsOf = (contents: readonly (Uint8Array | undefined)[]) =>
  contents.map((data) => data && Buffer.from(data).toString());

async function asked(far: ControlledBlobService, count: number): Promise<void> {
  await vi.waitFor(() => expect(far.asked).toHaveLength(count));
}

describe("CombinedBlobService reading many blobs", () => {
  it("asks for what others wait for already no more, and for the rest by one call", async () => {
    const { near, far } = await withFar();
    await using service = new CombinedBlobService({ near, far });
    const first = service.readMany([ONE, TWO]);
    await asked(far, 1);
    const second = service.readMany([FOUR, TWO, THREE, TWO]);
    const third = service.readMany([ONE, TWO]);
    await asked(far, 2);
    far.answer();
    expect(textsOf(await first)).toEqual(["one", "two"]);
    expect(textsOf(await second)).toEqual(["four", "two", "three", "two"]);
    expect(textsOf(await third)).toEqual(["one", "two"]);
    expect(far.asked).toEqual([
      [ONE, TWO],
      [FOUR, THREE],
    ]);
    await vi.waitFor(async () => {
      const digests = [ONE, TWO, THREE, FOUR].map(({ digest }) => digest);
      expect(await near.hasMany(digests)).toEqual([true, true, true, true]);
    });
  });

  it("keeps apart those who expect different lengths of the same blob", async () => {
    const { near, far } = await withFar();
    await using service = new CombinedBlobService({ near, far });
    const wrong = service.readMany([{ ...THREE, size: 4 }]);
    const right = service.readMany([THREE]);
    far.answer();
    expect(textsOf(await wrong)).toEqual([undefined]);
    expect(textsOf(await right)).toEqual(["three"]);
  });

  it("gives everybody bytes of their own", async () => {
    const { near, far } = await withFar();
    await using service = new CombinedBlobService({ near, far });
    const reads = [service.readMany([ONE, ONE]), service.readMany([ONE])];
    far.answer();
    const [first, second] = await Promise.all(reads);
    first![0]!.fill(0);
    expect(textsOf(first!)[1]).toBe("one");
    expect(textsOf(second!)).toEqual(["one"]);
    await vi.waitFor(async () => expect(await near.has(ONE.digest)).toBe(true));
  });

  it("goes on while somebody waits, and is given up when nobody does", async () => {
    const { near, far } = await withFar();
    await using service = new CombinedBlobService({ near, far });
    const [one, two] = [new AbortController(), new AbortController()];
    const first = service.readMany([ONE], { signal: one.signal });
    const second = service.readMany([ONE], { signal: two.signal });
    await asked(far, 1);
    one.abort(new Error("first"));
    await expect(first).rejects.toThrow("first");
    expect(far.signals[0]!.aborted).toBe(false);
    two.abort(new Error("second"));
    await expect(second).rejects.toThrow("second");
    expect(far.signals[0]!.aborted).toBe(true);
    const third = service.readMany([ONE]);
    await asked(far, 2);
    far.answer();
    expect(textsOf(await third)).toEqual(["one"]);
  });

  it("neither gives nor keeps what is not what was asked for", async () => {
    const { near, far } = await withFar();
    const lie = Buffer.from("eno");
    far.readMany = async () => [lie];
    await using service = new CombinedBlobService({ near, far });
    expect(textsOf(await service.readMany([ONE]))).toEqual([undefined]);
    expect(await near.hasMany([ONE.digest, blake3Digest(lie)])).toEqual([false, false]);
  });

  it("tells all who wait when the far half fails, and leaves no rejection unhandled", async () => {
    const unhandled = await unhandledDuring(async () => {
      const { near, far } = await withFar();
      await using service = new CombinedBlobService({ near, far });
      const reads = [service.readMany([ONE]), service.readMany([ONE, TWO])];
      await asked(far, 2);
      const controllers = Array.from({ length: 20 }, () => new AbortController());
      const cancelled = controllers.map(({ signal }) => service.readMany([TWO, ONE], { signal }));
      const rejected = expect(Promise.allSettled(cancelled)).resolves.toSatisfy((results) =>
        (results as PromiseSettledResult<unknown>[]).every(({ status }) => status === "rejected"),
      );
      for (const controller of controllers) {
        await turn(); // each in another state
        controller.abort(new Error("enough"));
      }
      far.fail(new CastoreError("unavailable", "the server is gone"));
      for (const read of reads) await expect(read).rejects.toThrow("the server is gone");
      await rejected;
    });
    expect(unhandled).toEqual([]);
  });

  it("leaves no rejection unhandled of one that is cancelled as the near half answers", async () => {
    const unhandled = await unhandledDuring(async () => {
      const { far } = await withFar();
      const controller = new AbortController();
      const near = new MemoryBlobService();
      near.readMany = async (blobs) => {
        await turn();
        controller.abort(new Error("enough"));
        return blobs.map(() => undefined);
      };
      far.readMany = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
      await using service = new CombinedBlobService({ near, far });
      const { signal } = controller;
      await expect(service.readMany([ONE], { signal })).rejects.toThrow("enough");
    });
    expect(unhandled).toEqual([]);
  });
});
