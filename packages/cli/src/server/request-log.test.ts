import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { BlobService } from "@tvix/proto/castore";
import { Health } from "@tvix/proto/health";
import { describe, expect, it } from "vitest";
import { type Fixture, grpcClient, putBlob, startFixture } from "../../test/server-fixture.ts";

const TRACE = 10;
const WARN = 40;
const DEBUG = 20;
const STAT = "/tvix.castore.v1.BlobService/Stat";

/** The lines about calls, as soon as there is one. */
async function callLines(fixture: Fixture) {
  const lines = () => fixture.lines.filter(({ msg }) => msg === "call");
  await expect.poll(lines).not.toHaveLength(0);
  return lines();
}

describe("the log", () => {
  it("has one line per call, with what was called, by whom, and how it went", async () => {
    await using fixture = await startFixture();
    await putBlob(grpcClient(fixture), Buffer.alloc(1000));
    const lines = await callLines(fixture);
    expect(lines).toEqual([
      {
        level: DEBUG,
        time: expect.any(Number),
        service: "tvix.castore.v1.BlobService",
        method: "Put",
        protocol: "grpc",
        http: "2.0",
        code: "ok",
        durationMs: expect.any(Number),
        bytesIn: 1008,
        bytesOut: 39,
        peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        msg: "call",
      },
    ]);
  });

  it.each([
    ["grpc", "2.0", createGrpcTransport, "2"],
    ["grpc-web", "1.1", createGrpcWebTransport, "1.1"],
    ["connect", "1.1", createConnectTransport, "1.1"],
  ] as const)(
    "names the cause of a refusal over %s",
    async (protocol, http, transport, version) => {
      await using fixture = await startFixture();
      const client = createClient(
        BlobService,
        transport({ baseUrl: fixture.url, httpVersion: version as "2" }),
      );
      await expect(client.stat({ digest: new Uint8Array(3) })).rejects.toThrow();
      expect(await callLines(fixture)).toMatchObject([
        { level: DEBUG, protocol, http, code: "invalid_argument", error: "bad digest" },
      ]);
    },
  );

  it.each([
    ["application/grpc-web+proto", { "grpc-encoding": "lzma" }, "grpc-web", "unimplemented"],
    ["application/grpc", { "grpc-encoding": "lzma" }, "grpc", "unimplemented"],
    ["application/json", {}, "connect", "invalid_argument"],
    ["text/plain", {}, "connect", "unimplemented"],
  ])("tells of a %s call that no method gets to see", async (type, headers, protocol, code) => {
    await using fixture = await startFixture();
    await fetch(fixture.url + STAT, {
      method: "POST",
      headers: { "content-type": type, ...headers },
      body: "{",
    });
    expect(await callLines(fixture)).toMatchObject([{ method: "Stat", code, protocol }]);
  });

  it("warns of a fault of the server, with the error that the client is not shown", async () => {
    await using fixture = await startFixture();
    fixture.onPut = () => {
      throw new Error("disk on fire");
    };
    await expect(putBlob(grpcClient(fixture), Buffer.alloc(1))).rejects.toMatchObject({
      code: Code.Internal,
      rawMessage: "internal error",
    });
    expect(await callLines(fixture)).toMatchObject([
      { level: WARN, code: "internal", err: { message: "disk on fire" } },
    ]);
  });

  it("tells of an error in mid-stream", async () => {
    await using fixture = await startFixture();
    const client = grpcClient(fixture);
    const digest = await putBlob(client, Buffer.alloc(10));
    fixture.onRead = () => Promise.reject(new ConnectError("chunk is gone", Code.DataLoss));
    const read = async () => {
      for await (const _ of client.read({ digest }));
    };
    await expect(read()).rejects.toMatchObject({ code: Code.DataLoss });
    await expect
      .poll(() => fixture.lines.filter(({ method }) => method === "Read"))
      .toMatchObject([{ level: WARN, code: "data_loss", err: { rawMessage: "chunk is gone" } }]);
  });

  it("tells of a call that its client gives up", async () => {
    await using fixture = await startFixture();
    const client = grpcClient(fixture);
    const digest = await putBlob(client, Buffer.alloc(10));
    const given = new AbortController();
    const held = Promise.withResolvers<void>();
    fixture.onRead = () => {
      given.abort();
      return held.promise;
    };
    const read = async () => {
      for await (const _ of client.read({ digest }, { signal: given.signal }));
    };
    await expect(read()).rejects.toMatchObject({ code: Code.Canceled });
    await expect
      .poll(() => fixture.lines.filter(({ method }) => method === "Read"))
      .toMatchObject([{ level: DEBUG, code: "canceled" }]);
    held.resolve();
  });

  it("tells of a path that is no method", async () => {
    await using fixture = await startFixture();
    await fetch(`${fixture.url}/favicon.ico?v=1`);
    expect(await callLines(fixture)).toMatchObject([
      { level: DEBUG, path: "/favicon.ico", code: "unimplemented" },
    ]);
  });

  it("keeps health checks at trace", async () => {
    await using fixture = await startFixture();
    await createClient(Health, createGrpcTransport({ baseUrl: fixture.url })).check({});
    expect(await callLines(fixture)).toMatchObject([
      { level: TRACE, service: "grpc.health.v1.Health", method: "Check", code: "ok" },
    ]);
  });
});
