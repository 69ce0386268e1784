import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { connect as connectSocket } from "node:net";
import { Http2SessionManager } from "@connectrpc/connect-node";

/** How much of one response a server may send ahead of its reader, in bytes. */
const STREAM_WINDOW = 4 * 1024 * 1024;

/** The same for all responses of a connection. */
const CONNECTION_WINDOW = 16 * 1024 * 1024;

/** How long a frame may be that a server sends, in bytes: each one costs time, however long it is. */
const MAX_FRAME_SIZE = 256 * 1024;

const REQUEST_HEADERS: OutgoingHttpHeaders = {
  "content-type": "application/grpc+proto",
  te: "trailers",
};

/**
 * A connection to a gRPC server, shared by all calls. It is made when the first call is, and made again
 * when it broke.
 */
export interface Channel extends AsyncDisposable {
  /** Where it leads, as it was given. */
  readonly address: string;
  /**
   * Begins a request of gRPC on a stream of the same connection. Rejects if there is none to be had.
   *
   * @param headers what it has beside those of gRPC
   */
  request(path: string, headers?: OutgoingHttpHeaders): Promise<ClientHttp2Stream>;
}

/**
 * Makes a channel to an address: `grpc+http://host[:port]`, `grpc+https://host[:port]` or
 * `grpc+unix:///socket`. Nothing is connected yet.
 *
 * @param address a valid one, see `openBlobService`
 */
export function openChannel(address: string): Channel {
  const url = new URL(address.slice("grpc+".length));
  const settings = {
    settings: {
      initialWindowSize: STREAM_WINDOW,
      maxFrameSize: MAX_FRAME_SIZE,
      enablePush: false,
    },
    // In MB, as good as none. Node counts unsent data of calls that were cancelled for as long as the
    // connection lives, and a connection over the limit refuses every further call. What is really held
    // is bounded by the windows and the number of calls.
    maxSessionMemory: 1_000_000,
  };
  const path = decodeURIComponent(url.pathname);
  const isUnix = url.protocol === "unix:";
  const baseUrl = isUnix ? "http://localhost" : url.origin;
  const options = isUnix ? { ...settings, createConnection: () => connectSocket(path) } : settings;
  const sessionManager = new Http2SessionManager(baseUrl, undefined, options);
  return {
    address,
    async request(path, headers) {
      const all = { ...REQUEST_HEADERS, ...headers };
      const stream = await sessionManager.request("POST", path, all, {});
      widen(stream.session);
      return stream;
    },
    async [Symbol.asyncDispose]() {
      sessionManager.abort();
    },
  };
}

/** The connections whose window was raised: it is as small for all responses as for one, by default. */
const widened = new WeakSet<object>();

function widen(session: object | undefined): void {
  if (session === undefined || widened.has(session)) return;
  widened.add(session);
  (session as ClientHttp2Session).setLocalWindowSize(CONNECTION_WINDOW);
}
