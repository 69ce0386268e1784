import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { concatBytes, equalBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { ChunkList } from "./chunk-list.ts";
import { ChunkedBlobWriter, type ChunkSink } from "./chunked-writer.ts";

const averageChunkSize = 16 * 1024;

/** Bytes that look random and are the same every time. */
function noise(size: number): Buffer {
  return createHash("shake256", { outputLength: size }).update("writer").digest();
}

/** Keeps what it is given; `failing` calls reject. */
class RecordingSink implements ChunkSink {
  readonly calls: string[] = [];
  readonly put: { digest: B3Digest; data: Uint8Array }[] = [];
  committed: { digest: B3Digest; chunks: readonly { digest: string; size: number }[] } | undefined;
  failing: { [call in keyof ChunkSink]?: Error } = {};

  /** Everything that was put. */
  bytes(): Uint8Array {
    return concatBytes(this.put.map(({ data }) => data));
  }

  async putChunk(digest: B3Digest, data: Uint8Array): Promise<void> {
    this.#record("putChunk");
    this.put.push({ digest, data: new Uint8Array(data) });
  }

  async commit(digest: B3Digest, chunks: ChunkList): Promise<void> {
    this.#record("commit");
    this.committed = {
      digest,
      chunks: Array.from(chunks, ({ digest, size }) => ({ digest: digest.hex, size })),
    };
  }

  async discard(): Promise<void> {
    this.#record("discard");
  }

  #record(call: keyof ChunkSink): void {
    this.calls.push(call);
    if (this.failing[call] !== undefined) throw this.failing[call];
  }
}

describe("ChunkedBlobWriter", () => {
  it("hands over the chunks in order, then commits the blob with all of them", async () => {
    const data = noise(3_000_001);
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
    await writer.write(data.subarray(0, 5));
    await writer.write(data.subarray(5));

    const digest = await writer.close();

    expect(digest).toEqual(blake3Digest(data));
    expect(equalBytes(sink.bytes(), data)).toBe(true);
    for (const chunk of sink.put) expect(chunk.digest).toEqual(blake3Digest(chunk.data));
    expect(sink.committed).toEqual({
      digest,
      chunks: sink.put.map((chunk) => ({ digest: chunk.digest.hex, size: chunk.data.length })),
    });
    expect(sink.put.length).toBeGreaterThan(90);
    expect(sink.calls.indexOf("commit")).toBe(sink.put.length);
    expect(sink.calls).not.toContain("discard");
  });

  it("commits a short blob as one chunk of the same digest", async () => {
    const data = noise(100);
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink);
    await writer.write(data);
    const digest = await writer.close();
    expect(digest).toEqual(blake3Digest(data));
    expect(sink.put.length).toBe(1);
    expect(equalBytes(sink.bytes(), data)).toBe(true);
    expect(sink.committed).toEqual({ digest, chunks: [{ digest: digest.hex, size: 100 }] });
  });

  it("commits a blob that just fills a chunk as one", async () => {
    const data = new Uint8Array(2 * averageChunkSize); // zeros are cut at the maximum alone
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
    await writer.write(data);
    const digest = await writer.close();
    expect(digest).toEqual(blake3Digest(data));
    expect(sink.committed).toEqual({ digest, chunks: [{ digest: digest.hex, size: data.length }] });
  });

  it("commits the empty blob without a list when nothing was written, and puts it as a chunk", async () => {
    const sink = new RecordingSink();
    const digest = await new ChunkedBlobWriter(sink).close();
    expect(digest).toEqual(blake3Digest(new Uint8Array(0)));
    expect(sink.put).toEqual([{ digest, data: new Uint8Array(0) }]);
    expect(sink.committed).toEqual({ digest, chunks: [] });
  });

  it("gives the same digest when closed again, having committed once", async () => {
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink);
    await writer.write(noise(10));
    const [first, second] = await Promise.all([writer.close(), writer.close()]);
    expect(second).toEqual(first);
    expect(await writer.close()).toEqual(first);
    expect(sink.calls).toEqual(["putChunk", "commit"]);
  });

  it("waits until the sink has room", async () => {
    const room = Promise.withResolvers<void>();
    const sink = new RecordingSink();
    const putChunk = sink.putChunk.bind(sink);
    sink.putChunk = async (digest, data) => {
      await putChunk(digest, data);
      await room.promise;
    };
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
    let written = false;
    const write = writer.write(new Uint8Array(4 * averageChunkSize)).then(() => {
      written = true;
    });
    await new Promise(setImmediate);
    expect([written, sink.put.length]).toEqual([false, 1]);
    room.resolve();
    await write;
    expect(sink.put.length).toBe(2);
  });

  it("keeps the order of calls that do not wait for one another", async () => {
    const data = noise(3_000_000);
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
    const [, , digest] = await Promise.all([
      writer.write(data.subarray(0, 2_500_000)),
      writer.write(data.subarray(2_500_000)),
      writer.close(),
    ]);
    expect(digest).toEqual(blake3Digest(data));
    expect(equalBytes(sink.bytes(), data)).toBe(true);
  });

  it("refuses an average chunk size that is not offered", () => {
    expect(() => new ChunkedBlobWriter(new RecordingSink(), { averageChunkSize: 5 })).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });

  it("refuses to write after close, and keeps what was closed", async () => {
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink);
    const digest = await writer.close();
    await expect(writer.write(noise(1))).rejects.toMatchObject({
      code: "invalid_argument",
      message: "Cannot write to blob writer: it is closed",
    });
    expect(await writer.close()).toEqual(digest);
    expect(sink.calls).toEqual(["putChunk", "commit"]);
  });
});

describe("a ChunkedBlobWriter disposed of", () => {
  it("before close discards once and refuses further calls", async () => {
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
    await writer.write(noise(100_000));
    await writer[Symbol.asyncDispose]();
    await writer[Symbol.asyncDispose]();
    expect(sink.calls.filter((call) => call !== "putChunk")).toEqual(["discard"]);
    const disposed = {
      code: "invalid_argument",
      message: "Cannot use blob writer: it is disposed",
    };
    await expect(writer.write(noise(1))).rejects.toMatchObject(disposed);
    await expect(writer.close()).rejects.toMatchObject(disposed);
    expect(sink.committed).toBeUndefined();
  });

  it("after close discards nothing", async () => {
    const sink = new RecordingSink();
    {
      await using writer = new ChunkedBlobWriter(sink);
      await writer.close();
    }
    expect(sink.calls).toEqual(["putChunk", "commit"]);
  });

  it("while it closes lets that finish", async () => {
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink);
    const closing = writer.close();
    await writer[Symbol.asyncDispose]();
    expect(sink.calls).toEqual(["putChunk", "commit"]);
    expect(await closing).toEqual(blake3Digest(new Uint8Array(0)));
  });
});

describe("a ChunkedBlobWriter whose sink fails", () => {
  it.each(["putChunk", "commit"] as const)(
    "in %s discards once and fails with the same error from then on",
    async (call) => {
      const sink = new RecordingSink();
      const error = new CastoreError("resource_exhausted", "full");
      sink.failing = { [call]: error, discard: new Error("discarding failed too") };
      const writer = new ChunkedBlobWriter(sink, { averageChunkSize });
      const write = writer.write(new Uint8Array(2 * averageChunkSize));
      if (call === "putChunk") await expect(write).rejects.toBe(error);
      else await write;
      await expect(writer.close()).rejects.toBe(error);
      await expect(writer.close()).rejects.toBe(error);
      await expect(writer.write(noise(1))).rejects.toBe(error);
      await writer[Symbol.asyncDispose]();
      expect(sink.calls.filter((name) => name === "discard")).toEqual(["discard"]);
      expect(sink.committed).toBeUndefined();
    },
  );
});

describe("a ChunkedBlobWriter that is cancelled", () => {
  it("before anything was written rejects with the reason", async () => {
    const reason = new Error("not needed");
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { signal: AbortSignal.abort(reason) });
    await expect(writer.write(noise(1))).rejects.toBe(reason);
    await expect(writer.close()).rejects.toBe(reason);
    expect(sink.calls).toEqual(["discard"]);
  });

  it("while it writes stops after the chunk under way", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const sink = new RecordingSink();
    const putChunk = sink.putChunk.bind(sink);
    sink.putChunk = async (digest, data) => {
      await putChunk(digest, data);
      if (sink.put.length === 3) controller.abort(reason);
    };
    const { signal } = controller;
    const writer = new ChunkedBlobWriter(sink, { averageChunkSize, signal });
    await expect(writer.write(noise(500_000))).rejects.toBe(reason);
    expect(sink.calls).toEqual(["putChunk", "putChunk", "putChunk", "discard"]);
  });

  it("between the last write and close commits nothing", async () => {
    const controller = new AbortController();
    const sink = new RecordingSink();
    const writer = new ChunkedBlobWriter(sink, { signal: controller.signal });
    await writer.write(noise(10));
    controller.abort("changed my mind");
    await expect(writer.close()).rejects.toBe("changed my mind");
    expect(sink.calls).toEqual(["discard"]);
  });

  it("after it was committed has succeeded", async () => {
    const controller = new AbortController();
    const sink = new RecordingSink();
    const commit = sink.commit.bind(sink);
    sink.commit = async (digest, chunks) => {
      await commit(digest, chunks);
      controller.abort();
    };
    const writer = new ChunkedBlobWriter(sink, { signal: controller.signal });
    await writer.write(noise(10));
    expect(await writer.close()).toEqual(blake3Digest(noise(10)));
    expect(sink.calls).toEqual(["putChunk", "commit"]);
  });
});
