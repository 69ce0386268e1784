import { connect } from "node:http2";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import {
  type Fixture,
  grpcClient,
  openSocket,
  putBlob,
  readToEnd,
  startFixture,
} from "../../test/server-fixture.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/** Sends bytes one at a time and gives what comes back first. */
async function drip(fixture: Fixture, bytes: Buffer): Promise<Buffer> {
  const socket = await openSocket(fixture);
  socket.setNoDelay(true);
  const answer = new Promise<Buffer>((resolve) => socket.once("data", resolve));
  for (const byte of bytes) {
    socket.write(Buffer.of(byte));
    await turn();
  }
  try {
    return await answer;
  } finally {
    socket.destroy();
  }
}

/** Whether the server still answers. */
async function expectAlive(fixture: Fixture): Promise<void> {
  await expect(putBlob(grpcClient(fixture), Buffer.from("alive"))).resolves.toHaveLength(32);
}

describe("a connection", () => {
  it("is told to be HTTP/1.1 when its bytes come one at a time", async () => {
    await using fixture = await startFixture();
    const answer = await drip(fixture, Buffer.from(REQUEST));
    expect(answer.toString("latin1")).toMatch(/^HTTP\/1\.1 404 /);
  });

  it("is told to be HTTP/1.1 when it begins like HTTP/2", async () => {
    await using fixture = await startFixture();
    const request = REQUEST.replace("GET", "PROPFIND");
    const answer = await drip(fixture, Buffer.from(request));
    expect(answer.toString("latin1")).toMatch(/^HTTP\/1\.1 404 /);
  });

  it("is told to be HTTP/2 when its bytes come one at a time", async () => {
    await using fixture = await startFixture();
    const answer = await drip(
      fixture,
      Buffer.concat([Buffer.from(PREFACE, "latin1"), EMPTY_SETTINGS]),
    );
    const SETTINGS = 4;
    expect(answer[3]).toBe(SETTINGS);
  });

  it.each([
    ["binary bytes", Buffer.from(Array.from({ length: 300 }, (_, i) => (i * 7 + 128) & 0xff))],
    ["a TLS handshake", Buffer.from("16030100f8010000f40303", "hex")],
    ["text", Buffer.from("hello\r\n\r\n")],
    ["the beginning of a preface", Buffer.from("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")],
    ["a preface and frames that are none", Buffer.from(PREFACE + "z".repeat(300))],
  ])("with %s ends, and the server goes on", async (_, bytes) => {
    await using fixture = await startFixture();
    const socket = await openSocket(fixture);
    const answer = readToEnd(socket);
    socket.write(bytes);
    await answer;
    await expectAlive(fixture);
  });

  it.each([
    ["nothing", ""],
    ["half a preface", PREFACE.slice(0, 10)],
    ["half a header", "POST / HTTP/1.1\r\nHost:"],
  ])("that sends %s and waits is dropped", async (_, bytes) => {
    await using fixture = await startFixture({ headerTimeoutMs: 50 });
    const socket = await openSocket(fixture);
    socket.write(bytes);
    await readToEnd(socket);
    await expectAlive(fixture);
  });

  it.each([
    ["nothing", ""],
    ["half a preface", PREFACE.slice(0, 10)],
    ["a preface", PREFACE],
  ])("whose client sends %s and hangs up is forgotten", async (_, bytes) => {
    await using fixture = await startFixture();
    const socket = await openSocket(fixture);
    socket.end(bytes);
    await readToEnd(socket);
    await expectAlive(fixture);
  });

  it("over HTTP/1.1 is answered although the client has closed its side", async () => {
    await using fixture = await startFixture();
    const socket = await openSocket(fixture);
    socket.end(REQUEST.replace("Connection: close\r\n", ""));
    expect(await readToEnd(socket)).toMatch(/^HTTP\/1\.1 404 /);
  });
});

describe("the client of an HTTP/2 connection", () => {
  const times = { keepAliveMs: 50, keepAliveTimeoutMs: 100 };

  it("is let go when it answers no PING", async () => {
    await using fixture = await startFixture(times);
    const socket = await openSocket(fixture);
    const ended = new Promise((resolve) => socket.once("end", resolve));
    socket.resume();
    socket.write(Buffer.concat([Buffer.from(PREFACE, "latin1"), EMPTY_SETTINGS]));
    await ended;
    socket.destroy();
  });

  it("stays connected as long as it answers", async () => {
    await using fixture = await startFixture(times);
    const session = connect(fixture.url);
    let pings = 0;
    session.on("ping", () => pings++);
    await expect.poll(() => pings).toBeGreaterThan(3);
    expect(session.destroyed).toBe(false);
    session.destroy();
  });
});
