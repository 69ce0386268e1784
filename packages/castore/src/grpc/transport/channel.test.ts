import { once } from "node:events";
import {
  constants,
  createServer as createHttp2Server,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  HasBlobsResponseSchema,
  PutBlobResponseSchema,
  StatBlobResponseSchema,
} from "@tvix/proto/castore";
import { afterEach, describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import type { BlobService } from "../../blobservice/blob-service.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { Directory } from "../../model/directory.ts";
import { GrpcBlobService } from "../client/grpc-blob-service.ts";
import { GrpcDirectoryService } from "../client/grpc-directory-service.ts";
import { type ChannelOptions, openChannel } from "./channel.ts";
import { frameData } from "./frames.ts";

const CONTENTS = noise(20_000);
const DIGEST = blake3Digest(CONTENTS);
const LARGE = noise(100_000);
const LARGE_DIGEST = blake3Digest(LARGE);
const EMPTY_DIRECTORY = blake3Digest(new Uint8Array(0));
const GRPC: OutgoingHttpHeaders = { ":status": 200, "content-type": "application/grpc" };

const cleanup = new Set<() => unknown>();
afterEach(async () => {
  for (const end of cleanup) await end();
  cleanup.clear();
});

/** An HTTP/2 server on a port of its own, or on one that was used before. */
/** @param window how much a client may send ahead, in bytes */
async function listen(
  answer: (stream: ServerHttp2Stream, path: string) => unknown,
  port = 0,
  window = 65_535,
) {
  const settings = { initialWindowSize: window };
  const server = createHttp2Server({ maxSessionMemory: 1_000_000, settings });
  const sockets = new Set<Socket>();
  server.on("session", (session) => {
    session.on("error", () => undefined);
    session.setLocalWindowSize(window);
  });
  server.on("connection", (socket) => sockets.add(socket));
  server.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    answer(stream, headers[":path"]!);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    cleanup.delete(stop);
  };
  cleanup.add(stop);
  return { port: (server.address() as AddressInfo).port, stop };
}

function clientsOf(port: number, options: ChannelOptions) {
  const channel = openChannel(`grpc+http://127.0.0.1:${port}`, options);
  cleanup.add(() => channel[Symbol.asyncDispose]());
  return {
    channel,
    blobs: new GrpcBlobService(channel) as BlobService,
    directories: new GrpcDirectoryService(channel),
  };
}

/** Sends a message, without what frames and headers of this package know of it. */
function respond(stream: ServerHttp2Stream, message: Uint8Array): void {
  if (stream.destroyed) return;
  stream.respond(GRPC, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  const header = Buffer.alloc(5);
  header.writeUInt32BE(message.length, 1);
  stream.end(Buffer.concat([header, message]));
  stream.resume();
}

/** Answers the calls of one blob and one directory as a store that has them. */
function answerWell(stream: ServerHttp2Stream, path: string): void {
  const method = path.slice(path.lastIndexOf("/") + 1);
  if (path.includes("Directory")) {
    if (method === "Get") {
      respond(stream, new Uint8Array(0));
      return;
    }
    // { root_digest = 1 }
    const response = Buffer.concat([Buffer.from([0x0a, 32]), EMPTY_DIRECTORY.bytes]);
    stream.once("end", () => respond(stream, response));
    stream.resume();
    return;
  }
  if (method === "Stat")
    respond(stream, toBinary(StatBlobResponseSchema, create(StatBlobResponseSchema)));
  if (method === "Has") {
    respond(
      stream,
      toBinary(HasBlobsResponseSchema, create(HasBlobsResponseSchema, { present: [true] })),
    );
  }
  if (method === "Read") respond(stream, frameData([CONTENTS]).subarray(5));
  if (method === "Put") {
    let length = 0;
    stream.on("data", (data: Buffer) => {
      length += data.length;
    });
    stream.once("end", () => {
      const { bytes } = length > CONTENTS.length * 2 ? LARGE_DIGEST : DIGEST;
      const response = create(PutBlobResponseSchema, { digest: bytes });
      respond(stream, toBinary(PutBlobResponseSchema, response));
    });
  }
}

type Clients = ReturnType<typeof clientsOf>;

/** A call of every kind, and what it gives. */
const CALLS: readonly (readonly [string, (clients: Clients) => Promise<unknown>, unknown])[] = [
  ["a look-up", ({ blobs }) => blobs.has(DIGEST), true],
  ["a batch", ({ blobs }) => blobs.hasMany([DIGEST]), [true]],
  [
    "a download",
    async ({ blobs }) => Buffer.from(await collectBytes((await blobs.read(DIGEST))!)),
    CONTENTS,
  ],
  ["an upload", ({ blobs }) => putBlob(blobs, CONTENTS), DIGEST],
  ["an upload in parts", ({ blobs }) => putBlob(blobs, LARGE), LARGE_DIGEST],
  ["a directory", ({ directories }) => directories.get(EMPTY_DIRECTORY), Directory.from([])],
  [
    "a tree",
    ({ directories }) => Array.fromAsync(directories.getRecursive(EMPTY_DIRECTORY)),
    [Directory.from([])],
  ],
  [
    "directories that are put",
    async ({ directories }) => {
      await using putter = directories.openPutter();
      await putter.put(Directory.from([]));
      return await putter.close();
    },
    EMPTY_DIRECTORY,
  ],
];

describe.each(CALLS)("%s", (_, call, expected) => {
  it.each([
    [502, "text/html", "unavailable"],
    [503, "text/plain", "unavailable"],
    [504, undefined, "unavailable"],
    [429, "text/html", "unavailable"],
    [401, "text/html", "permission_denied"],
    [403, "application/json", "permission_denied"],
    [404, "text/html", "unimplemented"],
    [500, "text/html", "internal"],
    [200, "text/html", "internal"],
  ])("that is answered with HTTP status %d and %s is %s", async (status, type, code) => {
    const server = await listen((stream) => {
      stream.respond({ ":status": status, ...(type && { "content-type": type }) });
      stream.end("<html>This is a page, not a message.</html>");
    });
    const clients = clientsOf(server.port, { retryMs: 0 });
    await expect(call(clients)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`HTTP status ${status}`),
    });
  });

  it("goes on when the server refused its stream, or went away before it", async () => {
    let calls = 0;
    const server = await listen((stream, path) => {
      calls += 1;
      if (calls === 1) stream.close(constants.NGHTTP2_REFUSED_STREAM);
      else if (calls === 2) stream.session!.goaway(constants.NGHTTP2_NO_ERROR, stream.id! - 2);
      else answerWell(stream, path);
    });
    expect(await call(clientsOf(server.port, {}))).toEqual(expected);
    expect(calls).toBeGreaterThan(2);
  });

  it("fails when the server does not come back in time", async () => {
    let begun = 0;
    const server = await listen(() => begun++);
    const result = call(clientsOf(server.port, { retryMs: 300 }));
    result.catch(() => undefined);
    await expect.poll(() => begun).toBeGreaterThan(0);
    await server.stop();
    await expect(result).rejects.toMatchObject({ code: "unavailable" });
  });
});

it("waits for a server that restarts, and tells once that it does, whatever the call", async () => {
  const wait = async ([name, call, expected]: (typeof CALLS)[number]) => {
    let begun = 0;
    const told: string[] = [];
    const server = await listen(() => begun++);
    const result = call(clientsOf(server.port, { onWait: (message) => told.push(message) }));
    result.catch(() => undefined); // it is looked at below
    await expect.poll(() => begun, { message: name }).toBeGreaterThan(0);
    await server.stop();
    await expect.poll(() => told, { timeout: 10_000, message: name }).not.toEqual([]);
    await delay(200);
    await listen(answerWell, server.port);
    expect(await result, name).toEqual(expected);
    expect(told, name).toEqual([
      expect.stringMatching(/^.*; waiting up to 60 s for the server to come back$/),
    ]);
  };
  await Promise.all(CALLS.map(wait)); // each at a server of its own: most of the time passes in waiting
});

describe("a channel", () => {
  it("does not wait for a server that was never there", async () => {
    const server = await listen(answerWell);
    await server.stop();
    const { blobs } = clientsOf(server.port, {}); // by default it would wait for a minute
    await expect(blobs.has(DIGEST)).rejects.toMatchObject({ code: "unavailable" });
  });

  it("tells that a server does not speak TLS", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanup.add(() => server.close());
    const { port } = server.address() as AddressInfo;
    await using channel = openChannel(`grpc+https://127.0.0.1:${port}`);
    await expect(new GrpcBlobService(channel).has(DIGEST)).rejects.toThrow(
      /: the server does not speak TLS there; name it with grpc\+http$/,
    );
  });

  it("gives up a server that accepts connections and is silent", async () => {
    const server = createServer((socket) => socket.resume()).listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanup.add(() => server.close());
    const { port } = server.address() as AddressInfo;
    const { blobs } = clientsOf(port, { timeoutMs: 100 });
    await expect(blobs.has(DIGEST)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("did not answer within 100 ms"),
    });
  });

  it("asks a server four times that answers that something behind it is unavailable", async () => {
    let calls = 0;
    const server = await listen((stream) => {
      calls += 1;
      stream.respond(
        { ...GRPC, "grpc-status": "14", "grpc-message": "no bucket" },
        { endStream: true },
      );
    });
    const { blobs } = clientsOf(server.port, {});
    await expect(blobs.has(DIGEST)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(/no bucket$/),
    });
    expect(calls).toBe(4);
  });

  it.each(CALLS)("gives up a server that falls silent: %s", async (_, call) => {
    let begun = 0;
    const server = await listen(() => begun++);
    const link = await stallingLink(server.port);
    const clients = clientsOf(link.port, { keepAliveMs: 50, timeoutMs: 100, retryMs: 0 });
    const result = call(clients);
    result.catch(() => undefined); // it is looked at below
    await expect.poll(() => begun).toBeGreaterThan(0);
    link.stall();
    await expect(result).rejects.toMatchObject({ code: "unavailable" });
  });

  it("ends calls under way, and refuses further ones, when it is closed", async () => {
    let begun = 0;
    const server = await listen(() => begun++); // never answers
    const { blobs } = clientsOf(server.port, {});
    const result = blobs.has(DIGEST);
    result.catch(() => undefined); // it is looked at below
    await expect.poll(() => begun).toBeGreaterThan(0);
    await blobs[Symbol.asyncDispose]();
    await expect(result).rejects.toThrow(/the channel is closed$/);
    await expect(blobs.has(DIGEST)).rejects.toThrow(/the channel is closed$/);
  });

  it("never gives up a server that takes long", async () => {
    const server = await listen(async (stream, path) => {
      await delay(700);
      answerWell(stream, path);
    });
    const { blobs } = clientsOf(server.port, { keepAliveMs: 50, timeoutMs: 100, retryMs: 0 });
    expect(await blobs.has(DIGEST)).toBe(true);
  });

  it("never gives up a link that is slow", async () => {
    const server = await listen(answerWell);
    const link = await stallingLink(server.port, { bytesPerTick: 4_000 });
    const { blobs } = clientsOf(link.port, { keepAliveMs: 50, timeoutMs: 100, retryMs: 0 });
    expect(Buffer.from(await collectBytes((await blobs.read(DIGEST))!))).toEqual(CONTENTS);
    expect(await putBlob(blobs, LARGE)).toEqual(LARGE_DIGEST);
  });

  it("asks again for a service that a server lacked, once it is another connection", async () => {
    const asked: string[] = [];
    const lacking = (stream: ServerHttp2Stream, path: string) => {
      asked.push(path);
      if (path.includes("Batch"))
        stream.respond({ ...GRPC, "grpc-status": "12" }, { endStream: true });
      else answerWell(stream, path);
    };
    const server = await listen(lacking);
    const { blobs } = clientsOf(server.port, {});
    const batches = () => asked.filter((path) => path.includes("Batch")).length;
    expect(await blobs.hasMany([DIGEST])).toEqual([true]);
    expect(await blobs.hasMany([DIGEST])).toEqual([true]);
    expect(batches()).toBe(1);
    await server.stop();
    await listen(lacking, server.port);
    expect(await blobs.has(DIGEST)).toBe(true);
    expect(await blobs.hasMany([DIGEST])).toEqual([true]);
    expect(batches()).toBe(2);
  });

  it("takes a 404 of a proxy for no answer about batches", async () => {
    const asked: string[] = [];
    const server = await listen((stream, path) => {
      asked.push(path);
      if (asked.length > 1) return answerWell(stream, path);
      stream.respond({ ":status": 404, "content-type": "text/html" });
      stream.end("<html></html>");
    });
    const { blobs } = clientsOf(server.port, {});
    expect(await blobs.hasMany([DIGEST])).toEqual([true]);
    expect(await blobs.hasMany([DIGEST])).toEqual([true]);
    expect(asked.filter((path) => path.endsWith("BlobBatchService/Has"))).toHaveLength(2);
  });
});

describe("an upload that is cancelled while its link stalls", () => {
  it("sends nothing but bytes of the blob", async () => {
    const data = new Uint8Array(1024 * 1024).fill(0x11);
    const server = await listen((stream) => stream.resume(), 0, 64 * data.length);
    const sent: Uint8Array[] = [];
    let arrived = 0;
    const link = await stallingLink(server.port, {
      onData: (data) => {
        arrived += data.length;
        sent.push(data);
      },
    });
    const { blobs } = clientsOf(link.port, {});
    const controller = new AbortController();
    const { signal } = controller;
    await using writer = blobs.openWriter({ signal });
    for (let i = 0; i < 2; i++) await writer.write(data);
    await expect.poll(() => arrived).toBeGreaterThan(data.length); // the window is open
    link.stall();
    const writing = (async () => {
      for (let i = 0; i < 64; i++) await writer.write(data);
    })();
    writing.catch(() => undefined); // it is looked at below
    await delay(200); // until the link is full, with more than the system takes
    controller.abort(new Error("enough"));
    await expect(writing).rejects.toBe(signal.reason);
    data.fill(0x5a); // the bytes are the caller's again
    const before = arrived;
    link.go();
    await expect.poll(() => arrived).toBeGreaterThan(before);
    await delay(200);
    const contents = contentsOfDataFrames(Buffer.concat(sent));
    expect(contents.includes(0x11)).toBe(true);
    expect(contents.filter((byte) => byte === 0x5a)).toHaveLength(0);
  });
});

/**
 * Returns the contents of the DATA frames that a client sent. Others, such as PING, may have any bytes.
 * https://www.rfc-editor.org/rfc/rfc9113#section-4.1
 */
function contentsOfDataFrames(sent: Buffer): Buffer {
  const [header, data] = [9, 0];
  const frames: Buffer[] = [];
  for (let at = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".length; at + header <= sent.length; ) {
    const end = at + header + sent.readUIntBE(at, 3);
    if (sent[at + 3] === data) frames.push(sent.subarray(at + header, end));
    at = end;
  }
  return Buffer.concat(frames);
}

/** A link to a server that can stop to take bytes, and bring none. */
async function stallingLink(
  port: number,
  options: { bytesPerTick?: number; onData?: (data: Buffer) => void } = {},
) {
  const pairs: (readonly [Socket, Socket])[] = [];
  const server = createServer((client) => {
    const far = connect(port, "127.0.0.1");
    pairs.push([client, far]);
    forward(client, far, options);
    forward(far, client, { ...options, onData: undefined });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanup.add(() => {
    for (const socket of pairs.flat()) socket.destroy();
    server.close();
  });
  const all = (act: (socket: Socket) => unknown) => () => {
    for (const socket of pairs.flat()) act(socket);
  };
  return {
    port: (server.address() as AddressInfo).port,
    stall: all((socket) => socket.pause()),
    go: all((socket) => socket.resume()),
  };
}

function forward(
  from: Socket,
  to: Socket,
  {
    bytesPerTick,
    onData,
  }: { bytesPerTick?: number; onData?: ((data: Buffer) => void) | undefined },
): void {
  from.on("error", () => undefined);
  from.once("close", () => to.destroy());
  from.on("data", async (data) => {
    onData?.(data);
    if (bytesPerTick === undefined) {
      to.write(data);
      return;
    }
    from.pause();
    for (let at = 0; at < data.length; at += bytesPerTick) {
      to.write(data.subarray(at, at + bytesPerTick));
      await delay(20);
    }
    from.resume();
  });
}
