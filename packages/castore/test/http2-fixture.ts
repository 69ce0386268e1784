import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
} from "node:http2";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";

/** An HTTP/2 server on a unix socket. Disposing of it ends its connections. */
export interface Http2Fixture extends AsyncDisposable {
  readonly socket: string;
  readonly sessions: ReadonlySet<ServerHttp2Session>;
}

/** Starts a server. */
export async function startHttp2(prepare: (server: Http2Server) => void): Promise<Http2Fixture> {
  const folder = mkdtempSync(join(tmpdir(), "tvix-http2-"));
  const socket = join(folder, "sock");
  const server = createServer({ maxSessionMemory: 1_000_000 });
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => undefined); // of clients that break off
    session.once("close", () => sessions.delete(session));
  });
  prepare(server);
  server.listen(socket);
  await once(server, "listening");
  return {
    socket,
    sessions,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
      rmSync(folder, { recursive: true });
    },
  };
}

/** Opens a connection to a server. */
export function openHttp2({ socket }: Http2Fixture): ClientHttp2Session & AsyncDisposable {
  const session = connect("http://localhost", { createConnection: () => createConnection(socket) });
  session.on("error", () => undefined); // the calls show it
  return session as ClientHttp2Session & AsyncDisposable;
}

/** Begins a gRPC request. */
export function begin(session: ClientHttp2Session, path: string): ClientHttp2Stream {
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => undefined); // the test looks at the outcome
  return stream;
}

/** A response in full. */
export interface Answer {
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Waits for all of a response. */
export async function answerTo(stream: ClientHttp2Stream): Promise<Answer> {
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  stream.once("response", (found) => {
    headers = found;
  });
  stream.once("trailers", (found) => {
    trailers = found;
  });
  const body = await buffer(stream);
  return { headers, trailers, body };
}
