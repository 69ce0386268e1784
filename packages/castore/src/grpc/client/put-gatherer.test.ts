import { describe, expect, it } from "vitest";
import { type Http2Fixture, startHttp2 } from "../../../test/http2-fixture.ts";
import { noise } from "../../../test/noise.ts";
import { MemoryBlobService } from "../../blobservice/memory.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { MemoryDirectoryService } from "../../directoryservice/memory.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { castoreServices } from "../server/index.ts";
import { CallBudget } from "../transport/call-budget.ts";
import { openChannel } from "../transport/channel.ts";
import { answerDirectly } from "../transport/direct-exchange.ts";
import { directMethods } from "../transport/direct-methods.ts";
import { GrpcBlobService } from "./grpc-blob-service.ts";

const BLOBS = Array.from({ length: 100 }, (_, i) => noise(15_000, i));
const DIGESTS = BLOBS.map((data) => blake3Digest(data));

interface Fixture extends Http2Fixture {
  readonly blobService: GrpcBlobService;
  /** What the server stores. */
  readonly stored: MemoryBlobService;
  /** The signals of the batches that came, in order. */
  readonly batches: readonly (AbortSignal | undefined)[];
}

/** @param before what the server does before it stores a batch */
async function start(
  before: (blobs: readonly Uint8Array[]) => unknown = () => undefined,
): Promise<Fixture> {
  const batches: (AbortSignal | undefined)[] = [];
  class Stored extends MemoryBlobService {
    override async putMany(...args: Parameters<MemoryBlobService["putMany"]>) {
      batches.push(args[1]?.signal);
      await before(args[0]);
      return await super.putMany(...args);
    }
  }
  const stored = new Stored();
  const services = castoreServices({
    blobService: stored,
    directoryService: new MemoryDirectoryService(),
  });
  const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
  const budget = new CallBudget();
  const observer = { bytesIn: 0, bytesOut: 0, error: undefined, answered() {}, end() {} };
  const fixture = await startHttp2((server) => {
    server.on("stream", (stream, headers) => {
      void answerDirectly(stream, methods.get(headers[":path"]!)!, { ...observer }, budget);
    });
  });
  const channel = openChannel(`grpc+unix://${fixture.socket}`, { retryMs: 0 });
  const blobService = new GrpcBlobService(channel);
  const dispose = fixture[Symbol.asyncDispose].bind(fixture);
  return Object.assign(fixture, {
    blobService,
    stored,
    batches,
    async [Symbol.asyncDispose]() {
      await blobService[Symbol.asyncDispose]();
      await dispose();
    },
  });
}

describe("small blobs that are put at the same time", () => {
  it("go in few calls", async () => {
    await using fixture = await start();
    const puts = BLOBS.map((data) => putBlob(fixture.blobService, data));
    expect(await Promise.all(puts)).toEqual(DIGESTS);
    expect(fixture.batches.length).toBeLessThan(10);
    expect(await fixture.stored.hasMany(DIGESTS)).toEqual(DIGESTS.map(() => true));
  });

  it("go each by itself where a server refuses them together", async () => {
    const refuse = (blobs: readonly Uint8Array[]) => {
      if (blobs.length > 1) throw new CastoreError("resource_exhausted", "too much");
    };
    await using fixture = await start(refuse);
    const puts = BLOBS.map((data) => putBlob(fixture.blobService, data));
    expect(await Promise.all(puts)).toEqual(DIGESTS);
  });

  it("fail alone where one of them is refused", async () => {
    const bad = BLOBS[50]!;
    const refuse = (blobs: readonly Uint8Array[]) => {
      if (blobs.some((data) => bad.equals(data))) {
        throw new CastoreError("invalid_argument", "not this one");
      }
    };
    await using fixture = await start(refuse);
    const puts = await Promise.allSettled(BLOBS.map((data) => putBlob(fixture.blobService, data)));
    expect(puts.flatMap(({ status }, i) => (status === "rejected" ? i : []))).toEqual([50]);
    expect((puts[50] as PromiseRejectedResult).reason).toMatchObject({ code: "invalid_argument" });
  });

  it("are stored but for those that are cancelled", async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await start(() => gate.promise);
    const reason = new Error("enough");
    const cancelling = new AbortController();
    const puts = BLOBS.map((data, i) => {
      const options = i % 2 === 0 ? { signal: cancelling.signal } : undefined;
      return putBlob(fixture.blobService, data, options);
    });
    await expect.poll(() => fixture.batches.length).toBeGreaterThan(0);
    cancelling.abort(reason);
    const cancelled = puts.filter((_, i) => i % 2 === 0);
    for (const put of cancelled) await expect(put).rejects.toBe(reason);
    gate.resolve();
    expect(await Promise.all(puts.filter((_, i) => i % 2 === 1))).toEqual(
      DIGESTS.filter((_, i) => i % 2 === 1),
    );
  });

  it("stop the call that carries them once all of them are cancelled", async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await start(() => gate.promise);
    const cancelling = new AbortController();
    const options = { signal: cancelling.signal };
    const puts = BLOBS.slice(0, 3).map((data) => putBlob(fixture.blobService, data, options));
    await expect.poll(() => fixture.batches.length).toBe(1);
    cancelling.abort();
    expect((await Promise.allSettled(puts)).map(({ status }) => status)).toEqual(
      puts.map(() => "rejected"),
    );
    await expect.poll(() => fixture.batches[0]!.aborted).toBe(true);
    gate.resolve();
    expect(await putBlob(fixture.blobService, BLOBS[0]!)).toEqual(DIGESTS[0]);
  });
});
