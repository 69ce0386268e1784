import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import { ChunkList, type ChunkMeta } from "./chunk-list.ts";
import { type ReadChunkedOptions, readChunked } from "./chunked-reader.ts";

const SIZES = [5, 1, 10, 7];
const data: Uint8Array = createHash("shake256", { outputLength: 23 }).update("reader").digest();

/** A blob in chunks, which notes what is fetched and how much of that is under way or held. */
class Blob {
  readonly chunks: ChunkMeta[] = [];
  readonly fetched: number[] = [];
  readonly signals: (AbortSignal | undefined)[] = [];
  running = 0;
  readonly #data: Uint8Array[] = [];

  constructor(sizes: readonly number[] = SIZES) {
    let position = 0;
    for (const size of sizes) {
      const chunk = data.subarray(position, position + size);
      this.#data.push(chunk);
      this.chunks.push({ digest: blake3Digest(chunk), size });
      position += size;
    }
  }

  /** What fetching the chunk at `index` does before it gives the bytes. */
  async before(_index: number, _options?: AbortOptions): Promise<void> {}

  read(options?: ReadChunkedOptions): AsyncIterable<Uint8Array> {
    return readChunked(
      ChunkList.of(this.chunks),
      (chunk, abort) => this.#fetch(chunk, abort),
      options,
    );
  }

  async #fetch(chunk: ChunkMeta, options?: AbortOptions): Promise<Uint8Array> {
    const index = this.chunks.findIndex(({ digest }) => digest.equals(chunk.digest));
    this.fetched.push(index);
    this.signals.push(options?.signal);
    this.running++;
    try {
      await this.before(index, options);
      return this.#data[index]!;
    } finally {
      this.running--;
    }
  }
}

/** Resolves when everything that can go on without outside help has done so. */
async function settled(): Promise<void> {
  await new Promise(setImmediate);
}

describe("readChunked", () => {
  it("yields every range of a blob", async () => {
    for (let offset = 0; offset <= data.length + 1; offset++) {
      for (let length = 0; length <= data.length + 1; length++) {
        const found = await collectBytes(new Blob().read({ offset, length }));
        expect(Buffer.compare(found, data.subarray(offset, offset + length))).toBe(0);
      }
    }
  });

  it("reads to the end by default", async () => {
    expect(await collectBytes(new Blob().read())).toEqual(data);
    expect(await collectBytes(new Blob().read({ offset: 6 }))).toEqual(data.subarray(6));
  });

  it.each([
    [{ offset: 5, length: 1 }, [1]],
    [{ offset: 4, length: 2 }, [0, 1]],
    [{ offset: 6, length: 10 }, [2]],
    [{ offset: 16, length: Number.MAX_SAFE_INTEGER }, [3]],
    [{ offset: 6, length: 0 }, []],
    [{ offset: 23 }, []],
    [{ offset: Number.MAX_SAFE_INTEGER, length: Number.MAX_SAFE_INTEGER }, []],
  ])("fetches only the chunks that overlap %j", async (options, indexes) => {
    const blob = new Blob();
    await collectBytes(blob.read(options));
    expect(blob.fetched).toEqual(indexes);
  });

  it("yields nothing of an empty blob, and fetches nothing", async () => {
    const blob = new Blob([]);
    expect(await Array.fromAsync(blob.read())).toEqual([]);
    expect(blob.fetched).toEqual([]);
  });

  it("fetches nothing until it is iterated", async () => {
    const blob = new Blob();
    blob.read();
    await settled();
    expect(blob.fetched).toEqual([]);
  });

  it.each([
    [{ offset: -1 }, "offset", "-1"],
    [{ offset: 1.5 }, "offset", "1.5"],
    [{ offset: 2 ** 53 }, "offset", "9007199254740992"],
    [{ length: Number.NaN }, "length", "NaN"],
    [{ length: Number.POSITIVE_INFINITY }, "length", "Infinity"],
    [{ length: -5 }, "length", "-5"],
  ])("refuses %j", (options, name, value) => {
    expect(() => new Blob().read(options)).toThrow(
      new CastoreError(
        "invalid_argument",
        `Cannot read from blob: expected ${name} to be a non-negative safe integer, found ${value}`,
      ),
    );
  });

  it("reports a chunk of another size than listed as data_loss", async () => {
    const blob = new Blob();
    const { digest } = blob.chunks[1]!;
    blob.chunks[1] = { digest, size: 2 };
    const pieces = blob.read()[Symbol.asyncIterator]();
    expect(await pieces.next()).toEqual({ done: false, value: data.subarray(0, 5) });
    await expect(pieces.next()).rejects.toMatchObject({
      code: "data_loss",
      message: `Cannot read chunk ${digest}: expected 2 bytes, found 1`,
    });
  });
});

describe("reading ahead", () => {
  it.each([
    [0, [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]],
    [
      6,
      [
        [0, 1],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
      ],
    ],
    [
      16,
      [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2, 3],
      ],
    ],
    [
      17,
      [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
      ],
    ],
    [
      23,
      [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
      ],
    ],
  ])("holds %d bytes at most, or one chunk", async (readAhead, fetchedByPiece) => {
    const blob = new Blob();
    const found: number[][] = [];
    for await (const _piece of blob.read({ readAhead })) {
      await settled();
      found.push([...blob.fetched]);
    }
    expect(found).toEqual(fetchedByPiece);
  });

  it("keeps the order when a later chunk comes first", async () => {
    const blob = new Blob();
    const first = Promise.withResolvers<void>();
    blob.before = async (index) => {
      if (index === 0) await first.promise;
      if (index === 3) first.resolve();
    };
    expect(await collectBytes(blob.read())).toEqual(data);
  });

  it("yields all that comes before a chunk that cannot be fetched", async () => {
    const blob = new Blob();
    const error = new Error("broken");
    blob.before = async (index) => {
      if (index >= 2) throw error;
      await settled();
    };
    const pieces = blob.read()[Symbol.asyncIterator]();
    expect(await pieces.next()).toEqual({ done: false, value: data.subarray(0, 5) });
    expect(await pieces.next()).toEqual({ done: false, value: data.subarray(5, 6) });
    await expect(pieces.next()).rejects.toBe(error);
    expect(await pieces.next()).toEqual({ done: true, value: undefined });
    expect(blob.running).toBe(0);
  });

  it("cancels what is under way when the reader stops, and waits for its end", async () => {
    const blob = new Blob();
    const cancelled: number[] = [];
    blob.before = async (index, options) => {
      if (index === 0) return;
      const { promise, reject } = Promise.withResolvers<void>();
      options?.signal?.addEventListener("abort", () => {
        cancelled.push(index);
        setImmediate(reject, options.signal?.reason);
      });
      await promise;
    };
    for await (const piece of blob.read()) {
      expect(piece).toEqual(data.subarray(0, 5));
      break;
    }
    expect(cancelled).toEqual([1, 2, 3]);
    expect(blob.running).toBe(0);
  });
});

describe("cancelling a chunked read", () => {
  const reason = new Error("not needed");

  it("before it starts throws the reason", () => {
    expect(() => new Blob().read({ signal: AbortSignal.abort(reason) })).toThrow(reason);
  });

  it.each([
    ["several chunks", {}, 4],
    ["one chunk", { offset: 8, length: 3 }, 1],
  ])("of %s hands a signal to every fetch that gives the reason", async (_name, range, count) => {
    const blob = new Blob();
    const controller = new AbortController();
    blob.before = async (_index, options) => {
      const { promise, reject } = Promise.withResolvers<void>();
      options?.signal?.addEventListener("abort", () => reject(options.signal?.reason));
      await promise;
    };
    const pieces = blob.read({ ...range, signal: controller.signal })[Symbol.asyncIterator]();
    const next = pieces.next();
    await settled();
    controller.abort(reason);
    await expect(next).rejects.toBe(reason);
    expect(blob.signals.map((signal) => signal?.reason)).toEqual(Array(count).fill(reason));
    expect(blob.running).toBe(0);
  });

  it("between two pieces yields no further one, even if it is at hand", async () => {
    const blob = new Blob();
    const controller = new AbortController();
    const pieces = blob.read({ signal: controller.signal })[Symbol.asyncIterator]();
    await pieces.next();
    await settled();
    controller.abort(reason);
    await expect(pieces.next()).rejects.toBe(reason);
  });
});
