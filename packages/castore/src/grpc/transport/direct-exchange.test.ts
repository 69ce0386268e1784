import { once } from "node:events";
import { constants } from "node:http2";
import { setTimeout as delay } from "node:timers/promises";
import { create, fromBinary } from "@bufbuild/protobuf";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ReadBlobsRequestSchema, ReadBlobsResponseSchema } from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import {
  type Answer,
  answerTo,
  begin,
  type Http2Fixture,
  openHttp2,
  startHttp2,
} from "../../../test/http2-fixture.ts";
import { noise } from "../../../test/noise.ts";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import { MemoryBlobService } from "../../blobservice/memory.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { MemoryDirectoryService } from "../../directoryservice/memory.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { MAX_MESSAGE_BYTES } from "../../model/limits.ts";
import { castoreServices, registerServices } from "../server/index.ts";
import { CallBudget } from "./call-budget.ts";
import { answerDirectly, type CallObserver, isDirect } from "./direct-exchange.ts";
import { directMethods } from "./direct-methods.ts";
import { dataFrameHeader, frameMessage } from "./frames.ts";

const PUT = "/tvix.castore.v1.BlobService/Put";
const READ = "/tvix.castore.v1.BlobService/Read";
const STAT = "/tvix.castore.v1.BlobService/Stat";
const READ_BLOBS = "/tvix.castore.v1alpha.BlobBatchService/Read";

/** What is known of a call when it is over. */
interface Followed extends CallObserver {
  outcome: "complete" | "cut" | undefined;
  status: string | undefined;
}

interface Fixture extends Http2Fixture {
  readonly blobService: MemoryBlobService;
  readonly calls: readonly Followed[];
}

async function start(by: "streams" | "Connect" = "streams"): Promise<Fixture> {
  const blobService = new MemoryBlobService();
  const directoryService = new MemoryDirectoryService();
  const services = castoreServices({ blobService, directoryService });
  const calls: Followed[] = [];
  const fixture = await startHttp2((server) => {
    if (by === "Connect") {
      const readMaxBytes = MAX_MESSAGE_BYTES;
      server.on(
        "request",
        connectNodeAdapter({
          routes: (router) => registerServices(router, services),
          readMaxBytes,
        }),
      );
      return;
    }
    const budget = new CallBudget();
    const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
    server.on("stream", (stream, headers) => {
      expect(isDirect(headers)).toBe(true);
      const call = follow();
      calls.push(call);
      void answerDirectly(stream, methods.get(headers[":path"]!)!, call, budget);
    });
  });
  return Object.assign(fixture, { blobService, calls });
}

function follow(): Followed {
  return {
    bytesIn: 0,
    bytesOut: 0,
    error: undefined,
    outcome: undefined,
    status: undefined,
    answered(_, status) {
      this.status = status;
    },
    end(outcome) {
      this.outcome = outcome;
    },
  };
}

function framed(data: Uint8Array): Buffer {
  return Buffer.concat([dataFrameHeader(data.length), data]);
}

async function call(fixture: Http2Fixture, path: string, body: Uint8Array): Promise<Answer> {
  const session = openHttp2(fixture);
  try {
    const stream = begin(session, path);
    stream.end(body);
    return await answerTo(stream);
  } finally {
    session.destroy();
  }
}

const DIGEST = blake3Digest(Buffer.from("contents"));
const UNKNOWN = blake3Digest(Buffer.from("unknown"));

describe("a call that is answered straight on its stream", () => {
  it.each([
    ["a digest", STAT, framed(DIGEST.bytes), "0"],
    ["a digest", READ, framed(DIGEST.bytes), "0"],
    ["contents", PUT, framed(Buffer.from("more")), "0"],
    ["nothing", PUT, Buffer.alloc(0), "0"],
    ["messages of no bytes", PUT, Buffer.concat([framed(Buffer.alloc(0)), Buffer.alloc(5)]), "0"],
    ["a digest that is not known", STAT, framed(UNKNOWN.bytes), "5"],
    ["a digest that is not known", READ, framed(UNKNOWN.bytes), "5"],
    ["a digest that is too short", READ, framed(Buffer.from("short")), "3"],
    ["no message", READ, Buffer.alloc(0), "12"],
    ["an empty message", READ, Buffer.alloc(5), "3"],
    ["two messages", READ, Buffer.concat([framed(DIGEST.bytes), framed(DIGEST.bytes)]), "12"],
    ["a compressed message", READ, Buffer.from("0100000001ff", "hex"), "13"],
    ["a compressed message", PUT, Buffer.from("0100000001ff", "hex"), "13"],
    ["a message that is too long", PUT, Buffer.from("0002000001", "hex"), "8"],
    ["half a message", PUT, framed(noise(100)).subarray(0, 50), "3"],
    ["half of what stands before one", PUT, Buffer.from("0000", "hex"), "3"],
    ["bytes after the message", READ, Buffer.concat([framed(DIGEST.bytes), Buffer.of(0)]), "3"],
    ["bytes after the messages", PUT, Buffer.concat([framed(noise(100)), Buffer.of(0)]), "3"],
    ["text", PUT, Buffer.from("hello, is this gRPC?"), "8"],
  ])("with %s at %s is answered as Connect answers it", async (_, path, body, status) => {
    const answers: Answer[] = [];
    for (const by of ["streams", "Connect"] as const) {
      await using fixture = await start(by);
      await putBlob(fixture.blobService, Buffer.from("contents"));
      answers.push(await call(fixture, path, body));
    }
    const [ours, connects] = answers;
    expect(ours!.trailers["grpc-status"]).toBe(status);
    expect(connects!.trailers["grpc-status"]).toBe(status);
    for (const name of [":status", "content-type"]) {
      expect(ours!.headers[name]).toBe(connects!.headers[name]);
    }
    expect(ours!.body).toEqual(connects!.body);
    if (status === "0" || status === "5") {
      expect(ours!.trailers["grpc-message"]).toBe(connects!.trailers["grpc-message"]);
    }
  });

  it("stores and gives a blob of any size", async () => {
    await using fixture = await start();
    for (const size of [0, 1, 100, 70_000, 3_000_000]) {
      const contents = noise(size, size);
      const put = await call(fixture, PUT, framed(contents));
      expect(put.body.subarray(-32)).toEqual(Buffer.from(blake3Digest(contents).bytes));
      const read = await call(fixture, READ, framed(blake3Digest(contents).bytes));
      expect(read.trailers["grpc-status"]).toBe("0");
      expect(read.body.length).toBeGreaterThanOrEqual(size);
      const end = contents.subarray(-5);
      expect(read.body.subarray(read.body.length - end.length)).toEqual(end);
    }
  });

  it("counts the bytes of both directions", async () => {
    await using fixture = await start();
    await call(fixture, PUT, framed(noise(1000)));
    await expect.poll(() => fixture.calls[0]?.outcome).toBe("complete");
    expect(fixture.calls[0]).toMatchObject({ bytesIn: 1008, bytesOut: 39, status: "0" });
  });

  it.each([
    ["resets the stream", constants.NGHTTP2_CANCEL],
    ["resets the stream without an error", constants.NGHTTP2_NO_ERROR],
    ["drops the connection", undefined],
  ])("stores nothing when a client %s within a message", async (_, code) => {
    await using fixture = await start();
    const contents = noise(100_000);
    const session = openHttp2(fixture);
    const stream = begin(session, PUT);
    stream.write(framed(contents).subarray(0, -1));
    await expect.poll(() => fixture.calls.length).toBe(1);
    if (code === undefined) session.destroy();
    else stream.close(code);
    await expect.poll(() => fixture.calls[0]?.outcome).toBeDefined();
    expect(fixture.calls[0]?.status).not.toBe("0");
    session.destroy();
    await expect(fixture.blobService.has(blake3Digest(contents))).resolves.toBe(false);
  });

  it("frees the memory of blobs that were read together, once they are sent", async () => {
    await using fixture = await start();
    const memory = noise(200_000);
    const first = Buffer.from(memory.subarray(10, 90_000));
    const second = Buffer.from(memory.subarray(100_000, 100_005));
    Object.assign(fixture.blobService, {
      readManyStored: async (): Promise<readonly StoredBlob[]> => [
        { contents: memory.subarray(10, 90_000), memory },
        { contents: memory.subarray(100_000, 100_005), memory },
      ],
    });
    const blobs = [first, second].map((data) => {
      return { digest: blake3Digest(data).bytes, size: BigInt(data.length) };
    });
    const request = create(ReadBlobsRequestSchema, { blobs, frames: true });
    const body = frameMessage(ReadBlobsRequestSchema, request);
    const read = await call(fixture, READ_BLOBS, body);
    const found = fromBinary(ReadBlobsResponseSchema, read.body.subarray(5));
    expect(found.blobs.map(({ contents }) => Buffer.from(contents))).toEqual([first, second]);
    await expect.poll(() => memory.length).toBe(0);
  });

  it("waits for a reader that is slow, and ends with one that leaves", async () => {
    await using fixture = await start();
    const contents = noise(20_000_000);
    const digest = await putBlob(fixture.blobService, contents);
    const session = openHttp2(fixture);
    const stream = begin(session, READ);
    stream.end(framed(digest.bytes));
    await once(stream, "response");
    await delay(200);
    const { bytesOut } = fixture.calls[0]!;
    expect(bytesOut).toBeGreaterThan(0);
    expect(bytesOut).toBeLessThan(4_000_000);
    await delay(50);
    expect(fixture.calls[0]!.bytesOut).toBe(bytesOut);
    stream.close(constants.NGHTTP2_CANCEL);
    await expect.poll(() => fixture.calls[0]!.outcome).toBe("cut");
    session.destroy();
  });

  it("takes no more of an upload than it can store meanwhile", async () => {
    await using fixture = await start();
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const writer = fixture.blobService.openWriter();
    fixture.blobService.openWriter = () => ({
      async write(data) {
        await released;
        await writer.write(data);
      },
      close: () => writer.close(),
      [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
    });
    const contents = noise(5_000_000);
    const session = openHttp2(fixture);
    const stream = begin(session, PUT);
    const answer = answerTo(stream);
    stream.end(framed(contents));
    await delay(200);
    expect(stream.writableLength).toBeGreaterThan(3_000_000);
    release();
    const { body } = await answer;
    expect(body.subarray(-32)).toEqual(Buffer.from(blake3Digest(contents).bytes));
    session.destroy();
  });

  it("ends a sender whose upload was refused", async () => {
    await using fixture = await start();
    const session = openHttp2(fixture);
    const stream = begin(session, PUT);
    const answer = answerTo(stream);
    stream.write(Buffer.from("0100000001ff", "hex"));
    stream.write(Buffer.alloc(1_000_000));
    const { trailers } = await answer;
    expect(trailers["grpc-status"]).toBe("13");
    await expect.poll(() => fixture.calls[0]!.outcome, { timeout: 5_000 }).toBe("complete");
    session.destroy();
  });
});
