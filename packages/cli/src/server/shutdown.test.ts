import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { BlobService } from "@tvix/proto/castore";
import { v1 } from "@tvix/proto/reflection";
import { describe, expect, it } from "vitest";
import {
  type Fixture,
  gate,
  grpcClient,
  openSocket,
  putBlob,
  readBlob,
  readToEnd,
  startFixture,
} from "../../test/server-fixture.ts";

const BLOB = Buffer.alloc(3_000_000, "content");

/** Starts to read a blob and holds the server in mid-stream until `open`. */
async function heldRead(fixture: Fixture, client = grpcClient(fixture)) {
  const digest = await putBlob(grpcClient(fixture), BLOB);
  const reached = gate();
  const held = gate();
  fixture.onRead = () => {
    reached.open();
    return held.opened;
  };
  const read = readBlob(client, digest);
  read.catch(() => undefined);
  await reached.opened;
  return { read, open: held.open };
}

describe("shutdown", () => {
  it.each([
    ["gRPC over HTTP/2", createGrpcTransport, "2"],
    ["Connect over HTTP/1.1", createConnectTransport, "1.1"],
  ] as const)("lets a %s stream finish that is running", async (_, transport, httpVersion) => {
    await using fixture = await startFixture();
    const client = createClient(
      BlobService,
      transport({ baseUrl: fixture.url, httpVersion: httpVersion as "2" }),
    );
    const { read, open } = await heldRead(fixture, client);
    let down = false;
    const shutdown = fixture.server.shutdown().then(() => {
      down = true;
    });
    await expect(openSocket(fixture)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(down).toBe(false);
    open();
    expect(BLOB.equals(await read)).toBe(true);
    await shutdown;
  });

  it("lets an upload finish that is running", async () => {
    await using fixture = await startFixture();
    const received = gate();
    const stopped = gate();
    fixture.onPut = received.open;
    const put = grpcClient(fixture).put(
      (async function* () {
        yield { data: BLOB.subarray(0, 1000) };
        await stopped.opened;
        yield { data: BLOB.subarray(1000) };
      })(),
    );
    await received.opened;
    const shutdown = fixture.server.shutdown();
    stopped.open();
    expect((await put).digest).toHaveLength(32);
    await shutdown;
  });

  it("ends idle connections of either version of HTTP", async () => {
    await using fixture = await startFixture();
    const http1 = await openSocket(fixture);
    http1.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(http1, "data");
    const http2 = connectHttp2(fixture.url);
    await once(http2, "remoteSettings");
    const silent = await openSocket(fixture);
    const ended = Promise.all([readToEnd(http1), readToEnd(silent), once(http2, "close")]);
    await fixture.server.shutdown();
    await ended;
  });

  it("tells an HTTP/1.1 client that its connection ends with the call", async () => {
    await using fixture = await startFixture();
    const received = gate();
    fixture.onPut = received.open;
    const socket = await openSocket(fixture);
    socket.write(
      "POST /tvix.castore.v1.BlobService/Put HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n" +
        "Content-Type: application/grpc-web+proto\r\n\r\n",
    );
    socket.write(Buffer.from([0, 0, 0, 0, 3, 10, 1, 65]));
    await received.opened;
    const shutdown = fixture.server.shutdown();
    const answer = readToEnd(socket);
    socket.write(Buffer.from([0, 0]));
    expect((await answer).toLowerCase()).toContain("\r\nconnection: close\r\n");
    await shutdown;
  });

  it("ends reflection calls that wait for questions", async () => {
    await using fixture = await startFixture();
    const reflection = createClient(
      v1.ServerReflection,
      createGrpcTransport({ baseUrl: fixture.url }),
    );
    const never = gate();
    const answers = reflection
      .serverReflectionInfo(
        (async function* () {
          yield { messageRequest: { case: "listServices" as const, value: "" } };
          await never.opened;
        })(),
      )
      [Symbol.asyncIterator]();
    expect((await answers.next()).done).toBe(false);
    const shutdown = fixture.server.shutdown();
    expect((await answers.next()).done).toBe(true);
    never.open();
    await shutdown;
  });

  it("can be called again, and after the end", async () => {
    await using fixture = await startFixture();
    await Promise.all([fixture.server.shutdown(), fixture.server.shutdown()]);
    await fixture.server.shutdown();
    await fixture.server.terminate();
  });
});

describe("terminate", () => {
  it("breaks off what is running, and a shutdown that waits for it", async () => {
    await using fixture = await startFixture();
    const { read, open } = await heldRead(fixture);
    const silent = await openSocket(fixture);
    const shutdown = fixture.server.shutdown();
    await fixture.server.terminate();
    await shutdown;
    await expect(read).rejects.toThrow();
    await readToEnd(silent);
    open();
  });

  it("is what disposing does", async () => {
    const fixture = await startFixture();
    const { read, open } = await heldRead(fixture);
    await fixture.server[Symbol.asyncDispose]();
    await expect(read).rejects.toThrow();
    await expect(openSocket(fixture)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    open();
  });
});
