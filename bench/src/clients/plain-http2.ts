/**
 * Moves bytes by `node:http2` alone, hashed by BLAKE3 where they arrive: what no protocol over it can be faster than.
 *
 *   plain-http2.ts serve SOCKET
 *   plain-http2.ts put|read SOCKET SIZE COUNT AT_A_TIME
 */
import {
  type ClientHttp2Session,
  connect,
  createServer,
  type Http2Stream,
  type Settings,
} from "node:http2";
import { connect as connectSocket } from "node:net";
import { blake3Digest } from "@tvix/castore";
import pLimit from "p-limit";
import { countBuffers } from "./count-buffers.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const WINDOW = 16 * 1024 * 1024;
const SETTINGS: Settings = { initialWindowSize: WINDOW, maxFrameSize: 1024 * 1024 };

/** How much is given to a stream at a time, in bytes. */
const WRITE = Buffer.alloc(1024 * 1024, "bytes ");

const [operation, socket, ...numbers] = process.argv.slice(2) as [string, string, ...string[]];
if (operation === "serve") serve(socket);
else await run(operation, numbers.map(Number) as [number, number, number]);

function serve(path: string): void {
  const server = createServer({ settings: SETTINGS });
  server.on("session", (session) => session.setLocalWindowSize(WINDOW));
  server.on("stream", (stream, headers) => {
    const size = Number(headers.size);
    if (headers[":path"] === "/read") {
      stream.respond({ ":status": 200 });
      void send(stream, size);
      return;
    }
    receive(stream, () => {
      stream.respond({ ":status": 200 });
      stream.end("stored");
    });
  });
  server.listen(path);
  process.once("SIGTERM", () => process.exit());
}

async function run(operation: string, [size, count, atATime]: [number, number, number]) {
  const session = connect("http://localhost", {
    createConnection: () => connectSocket(socket),
    settings: SETTINGS,
  });
  await new Promise((resolve) => session.once("remoteSettings", resolve));
  session.setLocalWindowSize(WINDOW);
  const limit = pLimit(atATime);
  countBuffers();
  const seconds = await secondsOf(async () => {
    const calls = Array.from({ length: count }, () => limit(() => call(session, operation, size)));
    await Promise.all(calls);
  });
  session.close();
  reportWork({ seconds, bytes: size * count, count });
}

function call(session: ClientHttp2Session, operation: string, size: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { ":method": "POST", ":path": `/${operation}`, size: `${size}` };
    const stream = session.request(headers, { endStream: operation === "read" });
    stream.once("error", reject);
    receive(stream, resolve);
    if (operation === "put") void send(stream, size);
  });
}

async function send(stream: Http2Stream, size: number): Promise<void> {
  let left = size;
  for (; left > WRITE.length; left -= WRITE.length) {
    const hasRoom = stream.write(WRITE);
    if (!hasRoom) await new Promise((resolve) => stream.once("drain", resolve));
  }
  stream.end(WRITE.subarray(0, left));
}

/** Hashes what comes, some hundred KiB at a time. */
function receive(stream: Http2Stream, onEnd: () => void): void {
  let pieces: Uint8Array[] = [];
  let length = 0;
  const hash = () => {
    blake3Digest(Buffer.concat(pieces));
    [pieces, length] = [[], 0];
  };
  stream.on("data", (data: Uint8Array) => {
    pieces.push(data);
    length += data.length;
    if (length > 256 * 1024) hash();
  });
  stream.once("end", () => {
    hash();
    onEnd();
  });
}
