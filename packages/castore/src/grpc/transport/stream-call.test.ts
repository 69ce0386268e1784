import { once } from "node:events";
import { constants, type OutgoingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { BlobService } from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { type Http2Fixture, startHttp2 } from "../../../test/http2-fixture.ts";
import { noise } from "../../../test/noise.ts";
import { putBlob } from "../../blobservice/put-blob.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { GrpcBlobService } from "../client/grpc-blob-service.ts";
import { openChannel } from "./channel.ts";
import { dataFrameHeader } from "./frames.ts";
import { StreamCall } from "./stream-call.ts";

const CONTENTS = noise(50_000);
const DIGEST = blake3Digest(CONTENTS);
const OK: OutgoingHttpHeaders = { "grpc-status": "0" };
const GRPC: OutgoingHttpHeaders = { ":status": 200, "content-type": "application/grpc" };

/** A server that answers every call in the same way, and a client of it. */
async function start(
  answer: (stream: ServerHttp2Stream) => unknown,
): Promise<Http2Fixture & { readonly blobService: GrpcBlobService }> {
  const fixture = await startHttp2((server) => {
    server.on("stream", (stream) => {
      stream.on("error", () => undefined); // of calls that are cancelled
      void answer(stream);
    });
  });
  const blobService = new GrpcBlobService(
    openChannel(`grpc+unix://${fixture.socket}`, { retryMs: 0 }),
  );
  const dispose = fixture[Symbol.asyncDispose].bind(fixture);
  return Object.assign(fixture, {
    blobService,
    async [Symbol.asyncDispose]() {
      await blobService[Symbol.asyncDispose]();
      await dispose();
    },
  });
}

/** Answers with messages and a status. */
function respond(stream: ServerHttp2Stream, body: readonly Uint8Array[], status = OK): void {
  stream.respond(GRPC, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers(status));
  for (const part of body) stream.write(part);
  stream.end();
}

function framed(data: Uint8Array): Buffer {
  return Buffer.concat([dataFrameHeader(data.length), data]);
}

async function readBlob(blobService: GrpcBlobService, digest = DIGEST): Promise<Buffer> {
  const contents = await blobService.read(digest);
  return Buffer.from(await collectBytes(contents!));
}

describe("a response", () => {
  it.each([
    ["in one message", [framed(CONTENTS)]],
    [
      "in several messages of one chunk",
      [Buffer.concat([framed(CONTENTS.subarray(0, 7)), framed(CONTENTS.subarray(7))])],
    ],
    [
      "in small pieces",
      Array.from({ length: 501 }, (_, i) => framed(CONTENTS).subarray(i * 100, (i + 1) * 100)),
    ],
    ["with empty messages", [Buffer.alloc(5), framed(CONTENTS), framed(Buffer.alloc(0))]],
  ])("%s is read", async (_, body) => {
    await using fixture = await start((stream) => respond(stream, body));
    expect(await readBlob(fixture.blobService)).toEqual(CONTENTS);
  });

  it.each([
    ["a compressed message", [Buffer.from("0100000001ff", "hex")], "internal"],
    ["a message that is none", [framed(CONTENTS).fill(0xff, 5)], "internal"],
    ["the beginning of a message", [framed(CONTENTS).subarray(0, 9)], "internal"],
    ["a message that is too long", [Buffer.from("00ffffffff0a", "hex")], "resource_exhausted"],
    ["other contents", [framed(Buffer.from("other"))], "data_loss"],
    ["nothing", [], "data_loss"],
  ])("with %s is refused", async (_, body, code) => {
    await using fixture = await start((stream) => respond(stream, body));
    await expect(readBlob(fixture.blobService)).rejects.toMatchObject({ code });
  });

  it("that fails after its contents gives none of them", async () => {
    await using fixture = await start((stream) =>
      respond(stream, [framed(CONTENTS)], { "grpc-status": "15", "grpc-message": "rotten" }),
    );
    await expect(fixture.blobService.read(DIGEST)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringMatching(/rotten$/),
    });
  });

  it.each([
    ["of a foreign server", "caf%C3%A9 %25", "café %"],
    ["that is not encoded", "100% of %zz", "100% of %zz"],
    ["that is no UTF-8", "%ff", "\ufffd"],
    ["that is missing", undefined, ""],
  ])("tells of an error in its headers alone, with a message %s", async (_, encoded, message) => {
    const status = { "grpc-status": "7", ...(encoded && { "grpc-message": encoded }) };
    await using fixture = await start((stream) =>
      stream.respond({ ...GRPC, ...status }, { endStream: true }),
    );
    for (const call of [readBlob(fixture.blobService), putBlob(fixture.blobService, CONTENTS)]) {
      await expect(call).rejects.toMatchObject({
        code: "permission_denied",
        message: expect.stringMatching(new RegExp(`: ${message}$`)),
      });
    }
  });

  it("tells that a blob is absent in its headers alone", async () => {
    await using fixture = await start((stream) =>
      stream.respond({ ...GRPC, "grpc-status": "5" }, { endStream: true }),
    );
    await expect(fixture.blobService.read(DIGEST)).resolves.toBeUndefined();
    await expect(fixture.blobService.has(DIGEST)).resolves.toBe(false);
  });

  it.each([
    ["of a proxy that has no server", { ":status": 503 }, "unavailable"],
    ["of something that is no server of gRPC", { ":status": 404 }, "unimplemented"],
    ["that is a page", { ":status": 200, "content-type": "text/html" }, "internal"],
    ["with a status that there is not", { ...GRPC, "grpc-status": "99" }, "internal"],
  ])("%s is an error", async (_, headers, code) => {
    await using fixture = await start((stream) => {
      stream.respond(headers);
      stream.end();
    });
    await expect(readBlob(fixture.blobService)).rejects.toMatchObject({ code });
  });

  it("to an upload has one message", async () => {
    const digest = framed(DIGEST.bytes);
    for (const body of [[], [digest, digest]]) {
      await using fixture = await start((stream) => respond(stream, body));
      await expect(putBlob(fixture.blobService, CONTENTS)).rejects.toMatchObject({
        code: "internal",
      });
    }
  });
});

/** Ways for a call to break off, by what the server does in the middle of it. */
const BREAKS: readonly (readonly [string, (stream: ServerHttp2Stream) => unknown, string])[] = [
  ["resets the stream", (stream) => stream.close(constants.NGHTTP2_CANCEL), "unavailable"],
  ["refuses the stream", (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM), "unavailable"],
  ["has a fault", (stream) => stream.close(constants.NGHTTP2_INTERNAL_ERROR), "internal"],
  ["drops the connection", (stream) => stream.session!.destroy(), "unavailable"],
  [
    "announces its end and then drops the connection",
    (stream) => {
      const session = stream.session!;
      session.goaway(constants.NGHTTP2_NO_ERROR);
      setTimeout(() => session.socket.destroy(), 20);
    },
    "unavailable",
  ],
  [
    "says that it is going, with an error",
    (stream) => stream.session!.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM),
    "unavailable",
  ],
];

describe("a server that", () => {
  it.each(BREAKS)("%s in the middle of a download fails it", async (_, breakOff, code) => {
    await using fixture = await start(async (stream) => {
      stream.respond(GRPC, { waitForTrailers: true });
      stream.write(framed(CONTENTS).subarray(0, 30_000));
      await delay(20);
      breakOff(stream);
    });
    const failure = await readBlob(fixture.blobService).catch((error) => error);
    expect([code, "unavailable"]).toContain(failure.code);
  });

  it.each(BREAKS)("%s in the middle of an upload fails it", async (_, breakOff, code) => {
    await using fixture = await start(async (stream) => {
      stream.once("data", () => undefined);
      await once(stream, "data");
      breakOff(stream);
    });
    await using writer = fixture.blobService.openWriter();
    const upload = (async () => {
      for (let i = 0; i < 100; i++) await writer.write(noise(200_000, i));
      await writer.close();
    })();
    const failure = await upload.catch((error) => error);
    expect([code, "unavailable"]).toContain(failure.code);
    await expect(writer.write(CONTENTS)).rejects.toBe(failure);
  });

  it("goes away is connected to again", async () => {
    await using fixture = await start((stream) => respond(stream, [framed(CONTENTS)]));
    await readBlob(fixture.blobService);
    for (const session of fixture.sessions) session.close();
    await expect.poll(() => fixture.sessions.size).toBe(0);
    expect(await readBlob(fixture.blobService)).toEqual(CONTENTS);
  });

  it("refuses an upload before its end is heard, and sent no more", async () => {
    await using fixture = await start((stream) => {
      stream.respond({ ...GRPC, "grpc-status": "8", "grpc-message": "full" }, { endStream: true });
    });
    await using writer = fixture.blobService.openWriter();
    const upload = (async () => {
      for (let i = 0; i < 1000; i++) await writer.write(noise(200_000, i));
    })();
    await expect(upload).rejects.toMatchObject({ code: "resource_exhausted" });
  });

  it("does not answer while it is connected to does not keep who gives up", async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => sockets.push(socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const channel = openChannel(`grpc+http://127.0.0.1:${port}`);
    const { signal, abort } = withAbort();
    const reading = new GrpcBlobService(channel).read(DIGEST, { signal });
    await once(server, "connection");
    abort();
    await expect(reading).rejects.toBe(signal.reason);
    await channel[Symbol.asyncDispose]();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
});

/** Leads to a unix socket; once stalled, nothing that a client sends gets through. */
async function stallingLink(
  socket: string,
): Promise<AsyncDisposable & { readonly address: string; stall(): void }> {
  const sockets: Socket[] = [];
  const server = createServer((near) => {
    const far = connect(socket);
    near.pipe(far).pipe(near);
    for (const end of [near, far]) end.on("error", () => undefined);
    sockets.push(near, far);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `grpc+http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stall() {
      sockets[0]!.unpipe().pause();
    },
    async [Symbol.asyncDispose]() {
      for (const end of sockets) end.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function withAbort(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort(new Error("enough")) };
}

describe("a call that is cancelled", () => {
  it.each([
    ["by its signal", "signal"],
    ["by disposing of its writer", "dispose"],
  ])("%s is not a whole upload for any server", async (_, how) => {
    const bodies: Promise<Buffer>[] = [];
    await using fixture = await start((stream) => {
      bodies.push(buffer(stream).catch(() => Buffer.alloc(0)));
    });
    const { signal, abort } = withAbort();
    {
      await using writer = fixture.blobService.openWriter({ signal });
      await writer.write(noise(100_000));
      await expect.poll(() => bodies.length).toBe(1);
      if (how === "signal") {
        abort();
        await expect(writer.close()).rejects.toBe(signal.reason);
      }
    }
    const body = await bodies[0]!;
    expect(body.length).toBeLessThan(framed(noise(100_000)).length);
  });

  it("ends an upload whose link is stalled", async () => {
    const window = 64 * 1024 * 1024; // so that it is the link which stalls
    let uploads = 0;
    await using fixture = await startHttp2((server) => {
      server.on("session", (session) => {
        session.settings({ initialWindowSize: window });
        session.setLocalWindowSize(window);
      });
      server.on("stream", (stream) => {
        stream.on("error", () => undefined); // of the upload that is cancelled
        stream.resume();
        uploads += 1;
      });
    });
    await using link = await stallingLink(fixture.socket);
    await using blobService = new GrpcBlobService(openChannel(link.address, { retryMs: 0 }));
    const { signal, abort } = withAbort();
    await using writer = blobService.openWriter({ signal });
    let written = 0;
    const upload = (async () => {
      for (;;) {
        await writer.write(noise(1_000_000));
        written += 1;
        if (uploads > 0) link.stall();
      }
    })();
    const outcome = upload.catch((error) => error);
    for (let before = -1; before < written || uploads === 0; ) {
      before = written;
      await delay(200); // until it waits for room
    }
    abort();
    expect(await outcome).toBe(signal.reason);
  });

  it("has nothing to send before there is much, or all of it", async () => {
    let calls = 0;
    await using fixture = await start(() => calls++);
    {
      await using writer = fixture.blobService.openWriter();
      await writer.write(noise(10_000));
    }
    expect(calls).toBe(0);
  });

  it("by a reader that stops ends at the server", async () => {
    let code: number | undefined;
    await using fixture = await start(async (stream) => {
      stream.once("close", () => {
        code = stream.rstCode;
      });
      stream.respond(GRPC, { waitForTrailers: true });
      for (let i = 0; i < 20 && !stream.closed; i++) {
        if (!stream.write(framed(noise(1_000_000, i)))) await once(stream, "drain");
      }
    });
    const contents = await fixture.blobService.read(DIGEST);
    for await (const _ of contents!) break;
    await expect.poll(() => code).toBe(constants.NGHTTP2_CANCEL);
  });
});

describe("a reader that is slow", () => {
  it("is sent no more than it can hold", async () => {
    let sent = 0;
    await using fixture = await start(async (stream) => {
      stream.respond(GRPC, { waitForTrailers: true });
      for (let i = 0; i < 40 && !stream.closed; i++) {
        await new Promise((resolve) => stream.write(framed(noise(1_000_000, i)), resolve));
        sent += 1_000_000;
      }
    });
    const contents = await fixture.blobService.read(DIGEST);
    const iterator = contents![Symbol.asyncIterator]();
    await iterator.next();
    await delay(300);
    expect(sent).toBeLessThan(15_000_000);
    await iterator.return?.();
  });

  it("can be cancelled while it waits", async () => {
    await using fixture = await start((stream) => stream.respond(GRPC));
    const channel = openChannel(`grpc+unix://${fixture.socket}`);
    const { signal, abort } = withAbort();
    const request = { digest: DIGEST.bytes };
    const { read } = BlobService.method;
    const call = await StreamCall.dataStream(channel, read, request, { signal });
    const next = call.nextData();
    abort();
    await expect(next).rejects.toMatchObject({ code: 1 });
    await channel[Symbol.asyncDispose]();
  });
});
