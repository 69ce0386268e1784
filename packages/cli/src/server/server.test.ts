import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type ClientHttp2Stream, connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { BlobChunkSchema, BlobService } from "@tvix/proto/castore";
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

const BLOB = Buffer.from("x86_64-linux");
const STAT = "/tvix.castore.v1.BlobService/Stat";
const PUT = "/tvix.castore.v1.BlobService/Put";

/** A gRPC frame around a BlobChunk. */
function frame(data: Uint8Array): Buffer {
  const message = toBinary(BlobChunkSchema, create(BlobChunkSchema, { data }));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Types of HTTP/2 frames: RFC 9113, section 6. */
const FRAME = { data: 0, headers: 1, rstStream: 3, settings: 4 };

function http2Frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Names and values by turns as HPACK literals without indexing: RFC 7541, section 6.2.2. */
function literalHeaders(namesAndValues: readonly string[]): Buffer {
  const parts = namesAndValues.map((text, i) => {
    const prefix = i % 2 === 0 ? [0, text.length] : [text.length];
    return Buffer.concat([Buffer.from(prefix), Buffer.from(text)]);
  });
  return Buffer.concat(parts);
}

/** A gRPC call over bare HTTP/2, to which the caller writes. */
function bareCall(fixture: Fixture, headers: Record<string, string>) {
  const session = connectHttp2(fixture.url);
  session.on("error", () => undefined);
  const stream: ClientHttp2Stream = session.request({
    ":method": "POST",
    ":path": PUT,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  stream.on("error", () => undefined);
  return { session, stream };
}

describe("one server", () => {
  it("speaks gRPC over HTTP/2", async () => {
    await using fixture = await startFixture();
    const client = grpcClient(fixture);
    const digest = await putBlob(client, BLOB.subarray(0, 5), BLOB.subarray(5));
    expect(Buffer.from(digest).toString("base64")).toBe(
      "KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA=",
    );
    expect(Buffer.from(await readBlob(client, digest))).toEqual(BLOB);
  });

  it("speaks Connect over HTTP/1.1", async () => {
    await using fixture = await startFixture();
    const digest = await putBlob(grpcClient(fixture), BLOB);
    const call = (body: unknown) =>
      fetch(fixture.url + STAT, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
    const found = await call({ digest: Buffer.from(digest).toString("base64") });
    expect([found.status, await found.json()]).toEqual([200, {}]);
    const refused = await call({ digest: "AAAA" });
    expect([refused.status, await refused.json()]).toEqual([
      400,
      { code: "invalid_argument", message: "bad digest" },
    ]);
  });

  it("speaks gRPC-web over HTTP/1.1", async () => {
    await using fixture = await startFixture();
    const client = createClient(
      BlobService,
      createGrpcWebTransport({ baseUrl: fixture.url, httpVersion: "1.1" }),
    );
    const digest = await putBlob(client, BLOB);
    expect(Buffer.from(await readBlob(client, digest))).toEqual(BLOB);
    await expect(client.stat({ digest: new Uint8Array(32) })).rejects.toMatchObject({
      code: Code.NotFound,
    });
  });

  it("carries a blob of several windows both ways", async () => {
    await using fixture = await startFixture();
    const client = grpcClient(fixture);
    const parts = Array.from({ length: 48 }, (_, i) => Buffer.alloc(100_003, i));
    const digest = await putBlob(client, ...parts);
    const read = await readBlob(client, digest);
    expect(Buffer.concat(parts).equals(read)).toBe(true);
  });

  it("serves both loopback addresses and a unix socket at once", async () => {
    const folder = await mkdtemp(join(tmpdir(), "server-"));
    try {
      await using fixture = await startFixture({
        addresses: ["localhost:0", join(folder, "socket")],
      });
      const port = fixture.address.split(":")[1];
      expect(fixture.server.addresses).toEqual([
        `127.0.0.1:${port}`,
        `[::1]:${port}`,
        join(folder, "socket"),
      ]);
      const digest = await putBlob(grpcClient(fixture), BLOB);
      const overIpv6 = createClient(
        BlobService,
        createGrpcTransport({ baseUrl: `http://[::1]:${port}` }),
      );
      await expect(overIpv6.stat({ digest })).resolves.toBeDefined();
      const overUnix = createClient(
        BlobService,
        createGrpcTransport({
          baseUrl: "http://localhost",
          nodeOptions: { createConnection: () => connect(join(folder, "socket")) },
        }),
      );
      await expect(overUnix.stat({ digest })).resolves.toBeDefined();
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("takes whatever a client calls the host", async () => {
    await using fixture = await startFixture();
    const { session, stream } = bareCall(fixture, { ":authority": "%2Frun%2Fstore.sock" });
    stream.end(frame(BLOB));
    const [trailers] = await once(stream.resume(), "trailers");
    expect(trailers["grpc-status"]).toBe("0");
    session.close();
  });

  it("takes compressed requests and sends responses as they are", async () => {
    await using fixture = await startFixture();
    const response = await fetch(fixture.url + STAT, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "content-encoding": "gzip",
        "accept-encoding": "gzip",
      },
      body: gzipSync(JSON.stringify({ digest: "A".repeat(4000) })),
    });
    expect(response.headers.get("content-encoding")).toBeNull();
    expect(await response.json()).toEqual({ code: "invalid_argument", message: "bad digest" });
  });

  it("answers a gRPC call of an unknown method with UNIMPLEMENTED", async () => {
    await using fixture = await startFixture();
    const { session, stream } = bareCall(fixture, { ":path": "/no.such.Service/Call" });
    stream.end();
    const [headers] = await once(stream.resume(), "response");
    expect([headers[":status"], headers["grpc-status"]]).toEqual([200, "12"]);
    expect(headers["grpc-message"]).toContain(encodeURIComponent("/no.such.Service/Call"));
    session.close();
  });

  it("answers any other unknown path with 404", async () => {
    await using fixture = await startFixture();
    expect((await fetch(`${fixture.url}/index.html`)).status).toBe(404);
  });

  it("refuses a message of more than 32 MiB by its announced length", async () => {
    await using fixture = await startFixture();
    const { session, stream } = bareCall(fixture, {});
    stream.write(Buffer.from([0, 0x02, 0x00, 0x00, 0x01]));
    const [trailers] = await once(stream.resume(), "trailers");
    expect(trailers["grpc-status"]).toBe(String(Code.ResourceExhausted));
    session.destroy();
  });

  it("listens nowhere if one of its addresses is refused", async () => {
    await using taken = await startFixture();
    const folder = await mkdtemp(join(tmpdir(), "server-"));
    try {
      const path = join(folder, "socket");
      await expect(startFixture({ addresses: [path, taken.address] })).rejects.toMatchObject({
        code: "unavailable",
        message: expect.stringContaining(`Cannot listen on "${taken.address}": already in use`),
      });
      await expect(once(connect(path), "connect")).rejects.toMatchObject({ code: "ENOENT" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("an upload", () => {
  it.each(["waits for more", "is busy with what came"])(
    "whose client resets the stream while the server %s does not pass for a whole one",
    async (doing) => {
      await using fixture = await startFixture();
      const received = gate();
      const held = gate();
      if (doing === "waits for more") held.open();
      fixture.onPut = () => {
        received.open();
        return held.opened;
      };
      // The client of Node.js ends a stream before it resets it, others do not.
      const socket = await openSocket(fixture);
      socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
      socket.write(http2Frame(FRAME.settings, 0, 0, Buffer.alloc(0)));
      const headers = [":method", "POST", ":scheme", "http", ":path", PUT, ":authority", "x"];
      headers.push("content-type", "application/grpc", "te", "trailers");
      socket.write(http2Frame(FRAME.headers, 0x4, 1, literalHeaders(headers)));
      socket.write(http2Frame(FRAME.data, 0, 1, frame(BLOB)));
      await received.opened;
      socket.write(http2Frame(FRAME.rstStream, 0, 1, Buffer.from([0, 0, 0, 8])));
      await expect.poll(() => fixture.lines).toMatchObject([{ method: "Put", code: "canceled" }]);
      held.open();
      await expect.poll(() => fixture.putErrors).toHaveLength(1);
      expect(ConnectError.from(fixture.putErrors[0]).code).toBe(Code.Canceled);
      socket.destroy();
    },
  );

  it("whose connection breaks between two messages does not pass for a whole one", async () => {
    await using fixture = await startFixture();
    const received = gate();
    fixture.onPut = received.open;
    const { session, stream } = bareCall(fixture, {});
    stream.write(frame(BLOB));
    await received.opened;
    session.destroy();
    await expect.poll(() => fixture.putErrors).toHaveLength(1);
    expect(ConnectError.from(fixture.putErrors[0]).code).toBe(Code.Canceled);
  });

  it("over HTTP/1.1 that breaks off does not pass for a whole one", async () => {
    await using fixture = await startFixture();
    const received = gate();
    fixture.onPut = received.open;
    const socket = await openSocket(fixture);
    const body = frame(BLOB);
    socket.write(
      `POST ${PUT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc-web+proto\r\n` +
        `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n`,
    );
    socket.write(Buffer.concat([body, Buffer.from("\r\n")]));
    await received.opened;
    socket.destroy();
    await expect.poll(() => fixture.putErrors).toHaveLength(1);
    expect(ConnectError.from(fixture.putErrors[0]).code).toBe(Code.Canceled);
  });

  it("that is refused early gets the whole answer, and is then told to stop", async () => {
    await using fixture = await startFixture();
    fixture.onPut = () => {
      throw new ConnectError("enough", Code.ResourceExhausted);
    };
    const { session, stream } = bareCall(fixture, {});
    const closed = once(stream, "close");
    stream.write(frame(BLOB));
    const [trailers] = await once(stream.resume(), "trailers");
    expect([trailers["grpc-status"], trailers["grpc-message"]]).toEqual(["8", "enough"]);
    await closed;
    expect(stream.rstCode).toBe(0);
    session.close();
  });

  it("over HTTP/1.1 that is refused early gets the whole answer", async () => {
    await using fixture = await startFixture();
    fixture.onPut = () => {
      throw new ConnectError("enough", Code.ResourceExhausted);
    };
    const socket = await openSocket(fixture);
    const body = frame(BLOB);
    socket.write(
      `POST ${PUT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n` +
        "Content-Type: application/grpc-web+proto\r\n\r\n",
    );
    socket.write(body);
    socket.once("data", () => socket.write(Buffer.alloc(1_000_000 - body.length)));
    expect(await readToEnd(socket)).toContain("grpc-message: enough");
  });
});
