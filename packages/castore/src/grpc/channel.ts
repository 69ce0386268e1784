import { connect as connectSocket } from "node:net";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { MAX_MESSAGE_BYTES } from "../limits.ts";

/** How much of one response a server may send ahead of its reader, in bytes. */
const STREAM_WINDOW = 4 * 1024 * 1024;

/**
 * A connection to a gRPC server, shared by all calls. It is made when the first call is, and made again
 * when it broke.
 */
export interface Channel extends AsyncDisposable {
  /** Where it leads, as it was given. */
  readonly address: string;
  /** What Connect clients are created with. */
  readonly transport: Transport;
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
    settings: { initialWindowSize: STREAM_WINDOW, enablePush: false },
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
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    readMaxBytes: MAX_MESSAGE_BYTES,
    writeMaxBytes: MAX_MESSAGE_BYTES,
  });
  return {
    address,
    transport,
    async [Symbol.asyncDispose]() {
      sessionManager.abort();
    },
  };
}
