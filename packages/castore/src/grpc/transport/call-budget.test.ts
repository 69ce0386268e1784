import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  BlobBatchService,
  PutBlobsRequestSchema,
  ReadBlobsRequestSchema,
} from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { answerTo, begin, openHttp2, startHttp2 } from "../../../test/http2-fixture.ts";
import { type BudgetedCall, CallBudget } from "./call-budget.ts";
import { answerDirectly } from "./direct-exchange.ts";
import { directMethods, type ServedService } from "./direct-methods.ts";

const KIB = 1024;
const { signal } = new AbortController();

/** A call whose client has sent and taken so much; `undefined` while it waits for something else. */
function callAt(progress: number | undefined): BudgetedCall & { ended: boolean } {
  const call = {
    ended: false,
    progress: () => progress,
    endStalled: () => {
      call.ended = true;
    },
  };
  return call;
}

describe("a budget of calls", () => {
  it("lets a call wait until others give back what it needs", async () => {
    const budget = new CallBudget({ maxBytes: 100 });
    const [first, second] = [budget.open(callAt(undefined)), budget.open(callAt(undefined))];
    await first.reserve(80, signal);
    let admitted = false;
    const waiting = second.reserve(30, signal).then(() => {
      admitted = true;
    });
    await delay(20);
    expect(admitted).toBe(false);
    first.release();
    await waiting;
  });

  it("refuses a call that has waited too long, and holds nothing for it", async () => {
    const budget = new CallBudget({ maxBytes: 100, waitMs: 20 });
    const [first, second] = [budget.open(callAt(undefined)), budget.open(callAt(undefined))];
    await first.reserve(80, signal);
    await expect(second.reserve(30, signal)).rejects.toMatchObject({ code: 8 });
    first.release();
    await budget.open(callAt(undefined)).reserve(100, signal);
  });

  it("ends calls whose clients do nothing, while others wait", async () => {
    const budget = new CallBudget({ maxBytes: 100, stallMs: 30 });
    const stalled = callAt(5);
    const busy = callAt(undefined);
    await budget.open(stalled).reserve(40, signal);
    await budget.open(busy).reserve(60, signal);
    await delay(100);
    expect(stalled.ended).toBe(false); // nobody waits
    const abandon = new AbortController();
    const waiting = budget.open(callAt(undefined)).reserve(10, abandon.signal);
    await expect.poll(() => stalled.ended).toBe(true);
    expect(busy.ended).toBe(false);
    abandon.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });
});

/** A server whose batches are counted, within a budget. */
async function startCounting(budget: CallBudget) {
  const counts = { now: 0, most: 0, sizes: [] as number[] };
  const served = {
    service: BlobBatchService,
    implementation: {
      async read() {
        counts.now += 1;
        counts.most = Math.max(counts.most, counts.now);
        await delay(5);
        counts.now -= 1;
        return { blobs: [] };
      },
      async put({ contents }: { contents: Uint8Array[] }) {
        counts.sizes.push(contents[0]!.length);
        return { digests: [] };
      },
    },
    bytesHeld: { read: () => 100 * KIB },
  } as unknown as ServedService;
  const methods = directMethods(served);
  const fixture = await startHttp2((server) => {
    server.on("stream", (stream, headers) => {
      const nothing = () => undefined;
      const observer = {
        bytesIn: 0,
        bytesOut: 0,
        error: undefined,
        answered: nothing,
        end: nothing,
      };
      void answerDirectly(stream, methods.get(headers[":path"]!)!, observer, budget);
    });
  });
  return Object.assign(fixture, { counts });
}

function frameOf(message: Uint8Array): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

const READ = frameOf(toBinary(ReadBlobsRequestSchema, create(ReadBlobsRequestSchema)));

describe("a server within a budget", () => {
  it("answers every call, no more at a time than there is room for", async () => {
    await using server = await startCounting(new CallBudget({ maxBytes: 400 * KIB }));
    const session = openHttp2(server);
    const answers = await Promise.all(
      Array.from({ length: 60 }, () => {
        const stream = begin(session, "/tvix.castore.v1alpha.BlobBatchService/Read");
        stream.end(READ);
        return answerTo(stream);
      }),
    );
    expect(answers.map(({ trailers }) => trailers["grpc-status"])).toEqual(Array(60).fill("0"));
    expect(server.counts.most).toBe(4);
  });

  it("gathers no more of requests than there is room for", async () => {
    const budget = new CallBudget({ maxBytes: 1500 * KIB, waitMs: 100 });
    await using server = await startCounting(budget);
    const session = openHttp2(server);
    const contents = [new Uint8Array(400 * KIB)];
    const message = create(PutBlobsRequestSchema, { contents });
    const request = frameOf(toBinary(PutBlobsRequestSchema, message));
    const path = "/tvix.castore.v1alpha.BlobBatchService/Put";
    const stalled = begin(session, path);
    stalled.write(request.subarray(0, 1000));
    await delay(50); // until it holds its room
    const refused = begin(session, path);
    refused.end(request);
    expect((await answerTo(refused)).trailers).toMatchObject({
      "grpc-status": "8",
      "grpc-message": expect.stringContaining("busy"),
    });
    stalled.end(request.subarray(1000));
    expect((await answerTo(stalled)).trailers["grpc-status"]).toBe("0");
    expect(server.counts.sizes).toEqual([400 * KIB]);
  });

  it("ends a call that stalls while another waits", async () => {
    const budget = new CallBudget({ maxBytes: 1500 * KIB, stallMs: 60 });
    await using server = await startCounting(budget);
    const session = openHttp2(server);
    const contents = [new Uint8Array(400 * KIB)];
    const message = create(PutBlobsRequestSchema, { contents });
    const request = frameOf(toBinary(PutBlobsRequestSchema, message));
    const path = "/tvix.castore.v1alpha.BlobBatchService/Put";
    const stalled = begin(session, path);
    stalled.write(request.subarray(0, 1000));
    await delay(50);
    const other = begin(session, path);
    other.end(request);
    expect((await answerTo(stalled)).trailers["grpc-status"]).toBe("8");
    expect((await answerTo(other)).trailers["grpc-status"]).toBe("0");
  });
});
