import { once } from "node:events";
import { connect } from "node:http2";
import { buffer } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import {
  type Fixture,
  grpcClient,
  openSocket,
  putBlob,
  readToEnd,
  startFixture,
} from "../../test/server-fixture.ts";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
/** The header of a frame HEADERS for stream 1, of 100 bytes, of which none follows. */
const HALF_HEADERS = Buffer.from([0, 0, 100, 1, 0, 0, 0, 0, 1]);
const PUT = "/tvix.castore.v1.BlobService/Put";

/** Waits until the server closes a connection over which some bytes were sent. */
async function closedAfter(fixture: Fixture, ...parts: readonly Uint8Array[]): Promise<void> {
  const socket = await openSocket(fixture);
  for (const part of parts) socket.write(part);
  await readToEnd(socket);
}

async function expectAlive(fixture: Fixture): Promise<void> {
  await expect(putBlob(grpcClient(fixture), Buffer.from("alive"))).resolves.toHaveLength(32);
}

describe("a client that is slow on purpose loses its connection", () => {
  it.each([
    ["in the header of HTTP/1.1", [Buffer.from("GET / HTTP/1.1\r\nX-A: ")]],
    ["before the settings of HTTP/2", [PREFACE]],
  ])("%s", async (_, parts) => {
    await using fixture = await startFixture({ headerTimeoutMs: 50 });
    await closedAfter(fixture, ...parts);
    await expectAlive(fixture);
  });

  it("in a header of HTTP/2, or without any call", async () => {
    await using fixture = await startFixture({ idleMs: 50, headerTimeoutMs: 100 });
    await closedAfter(fixture, PREFACE, EMPTY_SETTINGS, HALF_HEADERS);
    await closedAfter(fixture, PREFACE, EMPTY_SETTINGS);
    await expectAlive(fixture);
  });

  it("in the body of a request over HTTP/1.1", async () => {
    await using fixture = await startFixture({
      bodyTimeoutMs: 50,
      onOther: (request) => void request.resume(),
    });
    for (const path of ["/other", PUT]) {
      const head = `PUT ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+proto\r\nContent-Length: 9\r\n\r\n`;
      await closedAfter(fixture, Buffer.from(head.replace("PUT", path === PUT ? "POST" : "PUT")));
    }
    await expectAlive(fixture);
  });

  it.each([
    ["a direct call", PUT, {}],
    ["any other call", PUT, { "grpc-timeout": "20S" }],
    ["another request", "/other", { "content-type": "text/plain" }],
  ])("in the body of %s over HTTP/2, which is reset", async (_, path, headers) => {
    await using fixture = await startFixture({
      bodyTimeoutMs: 50,
      onOther: (request) => void request.resume(),
    });
    const session = connect(fixture.url);
    const type = { "content-type": "application/grpc", te: "trailers" };
    const stream = session.request({ ":method": "POST", ":path": path, ...type, ...headers });
    stream.write(Buffer.from([0, 0]));
    const [error] = await once(stream, "error").catch((error) => [error]);
    expect(String(error)).toContain("ENHANCE_YOUR_CALM");
    session.destroy();
    await expectAlive(fixture);
  });
});

describe("a client that waits for the server keeps its connection", () => {
  it.each(["HTTP/1.1", "HTTP/2"])("over %s", async (version) => {
    let answer = () => {};
    await using fixture = await startFixture({
      bodyTimeoutMs: 30,
      idleMs: 30,
      onOther(_, response) {
        answer = () => response.end("late");
        setTimeout(answer, 300);
      },
    });
    if (version === "HTTP/1.1") {
      const response = await fetch(fixture.url, { method: "PUT", body: "x".repeat(100) });
      expect(await response.text()).toBe("late");
    } else {
      const session = connect(fixture.url);
      const stream = session.request({ ":method": "PUT", ":path": "/" });
      stream.end(Buffer.alloc(100));
      expect((await buffer(stream)).toString()).toBe("late");
      session.destroy();
    }
  });
});
