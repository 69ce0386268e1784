import { create, toBinary } from "@bufbuild/protobuf";
import {
  BlobService as BlobServiceDescriptor,
  StatBlobRequestSchema,
  StatBlobResponseSchema,
} from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { countTurns } from "../../../test/count-turns.ts";
import { noise } from "../../../test/noise.ts";
import { ChunkList, type ChunkMeta } from "../../blobservice/chunk-list.ts";
import { MemoryBlobService } from "../../blobservice/memory.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { concatBytes } from "../../bytes/byte-string.ts";
import { MemoryDirectoryService } from "../../directoryservice/memory.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { directMethods } from "../transport/direct-methods.ts";
import { castoreServices } from "./index.ts";
import { CHUNKS_PER_TURN, chunkMessages, encodeStatResponse } from "./stat-response.ts";

/** The shortest and the longest size of each length of a varint. */
const SIZES = [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 8 * 1024 * 1024];

function listOf(length: number): ChunkList {
  const digest = blake3Digest(noise(10));
  return ChunkList.of(
    Array.from({ length }, (_, i): ChunkMeta => ({ digest, size: SIZES[i % SIZES.length]! })),
  );
}

/** Encodes with the library. */
function expected(chunks: ChunkList, bao: Uint8Array): Buffer {
  const message = create(StatBlobResponseSchema, {
    chunks: Array.from(chunks, ({ digest, size }) => ({
      digest: digest.bytes,
      size: BigInt(size),
    })),
    bao,
  });
  return Buffer.from(toBinary(StatBlobResponseSchema, message));
}

async function collect(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.from(concatBytes(await Array.fromAsync(parts)));
}

describe("the response to Stat", () => {
  it.each([
    ["nothing", 0, 0],
    ["no chunks and an outboard", 0, 200],
    ["chunks of all lengths of a size", SIZES.length, 0],
    ["chunks and a long outboard", SIZES.length, 70_000],
    ["as many chunks as are encoded in one turn", CHUNKS_PER_TURN, 0],
    ["more chunks than that, and an outboard", 2 * CHUNKS_PER_TURN + 1, 8],
  ])("of %s is encoded as by the library", async (_, count, baoBytes) => {
    const [chunks, bao] = [listOf(count), noise(baoBytes)];
    const { length, parts } = await encodeStatResponse(chunks, bao);
    const bytes = await collect(parts);
    expect(bytes.equals(expected(chunks, bao))).toBe(true);
    expect(length).toBe(bytes.length);
  });

  it("of a long list leaves turns to other events", async () => {
    const chunks = listOf(10 * CHUNKS_PER_TURN);
    let message: AsyncIterable<Uint8Array>;
    const measuring = async () => {
      message = (await encodeStatResponse(chunks, new Uint8Array(0))).parts;
    };
    expect(await countTurns(measuring)).toBeGreaterThanOrEqual(9);
    expect(await countTurns(() => collect(message))).toBeGreaterThanOrEqual(9);
    expect(await countTurns(() => chunkMessages(chunks))).toBeGreaterThanOrEqual(9);
  });

  it("is not encoded further once the call is cancelled", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const { signal } = controller;
    const { parts } = await encodeStatResponse(listOf(3 * CHUNKS_PER_TURN), noise(8), { signal });
    const received: Uint8Array[] = [];
    const reading = (async () => {
      for await (const part of parts) {
        received.push(part);
        controller.abort(reason);
      }
    })();
    await expect(reading).rejects.toBe(reason);
    expect(received.length).toBe(1);
  });

  it("is the same on an HTTP/2 stream as through Connect", async () => {
    await using blobService = new MemoryBlobService();
    const digest = await putBlob(blobService, noise(3_000_000));
    const services = castoreServices({
      blobService,
      directoryService: new MemoryDirectoryService(),
    });
    const { implementation } = services.find(({ service }) => service === BlobServiceDescriptor)!;
    const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
    const stat = methods.get("/tvix.castore.v1.BlobService/Stat")!;
    const { signal } = new AbortController();
    for (const sendBao of [false, true]) {
      const request = create(StatBlobRequestSchema, {
        digest: digest.bytes,
        sendChunks: true,
        sendBao,
      });
      const sent: Uint8Array[] = [];
      await stat.answer(requestsOf(toBinary(StatBlobRequestSchema, request)), signal, {
        send(...parts) {
          sent.push(...parts);
          return undefined;
        },
        free: () => undefined,
        reserve: async () => undefined,
      });
      const call = implementation as unknown as { stat: (...args: unknown[]) => unknown };
      const message = create(
        StatBlobResponseSchema,
        (await call.stat(request, { signal })) as object,
      );
      expect(message.chunks.length).toBeGreaterThan(1);
      const bytes = Buffer.from(concatBytes(sent));
      expect(bytes.readUInt32BE(1)).toBe(bytes.length - 5);
      expect(bytes.subarray(5)).toEqual(Buffer.from(toBinary(StatBlobResponseSchema, message)));
    }
  });

  it("is an error for a blob that is absent", async () => {
    const services = castoreServices({
      blobService: new MemoryBlobService(),
      directoryService: new MemoryDirectoryService(),
    });
    const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
    const request = create(StatBlobRequestSchema, {
      digest: new Uint8Array(B3Digest.LENGTH),
      sendChunks: true,
    });
    const answering = methods
      .get("/tvix.castore.v1.BlobService/Stat")!
      .answer(requestsOf(toBinary(StatBlobRequestSchema, request)), new AbortController().signal, {
        send: () => undefined,
        free: () => undefined,
        reserve: async () => undefined,
      });
    await expect(answering).rejects.toMatchObject({ code: 5 });
  });
});

async function* requestsOf(message: Uint8Array): AsyncGenerator<Uint8Array> {
  yield message;
}
