import {
  createServer as createHttp1Server,
  type Server as Http1Server,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import {
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { Heartbeat } from "@tvix/castore/rpc";
import { formatTcpAddress } from "./listen-address.ts";

/** A request over either version of HTTP. */
export type HttpRequest = IncomingMessage | Http2ServerRequest;

/** The response to an {@link HttpRequest}. */
export type HttpResponse = ServerResponse | Http2ServerResponse;

/** Answers a request. Must not throw. One with `Expect: 100-continue` waits for `writeContinue`. */
export type RequestHandler = (request: HttpRequest, response: HttpResponse) => void;

/** Handlers of requests. */
export interface HttpHandlers {
  /**
   * Answers a request over HTTP/2 directly on its stream, or returns `false`. Must not throw.
   *
   * @param peer the client, as `host:port` or `unix`
   */
  onStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, peer: string): boolean;
  /** Answers all other requests. */
  readonly onRequest: RequestHandler;
}

/** Options of a {@link OnePort}. */
export interface OnePortOptions {
  /** Handlers of all requests. */
  handlers: HttpHandlers;
  /**
   * Called when a connection violates HTTP/2, as Go clients do with their last frame, a GOAWAY that names
   * an impossible stream. Default: violations are ignored.
   */
  onProtocolError?: (error: Error, peer: string) => void;
  /**
   * Time limit for the first bytes, for a request header of HTTP/1.1, and for the settings of an HTTP/2 client, in
   * milliseconds. Default: 10,000.
   */
  headerTimeoutMs?: number;
  /** After this long without a call, an HTTP/2 connection is ended, in milliseconds. Default: 10 minutes. */
  idleMs?: number;
  /** After this long without a byte from an HTTP/2 client, a PING asks whether it is there. Default: 60 seconds. */
  keepAliveMs?: number;
  /** How long it may take to answer. Then its connection is ended. Default: 20 seconds. */
  keepAliveTimeoutMs?: number;
}

/** The connection preface of HTTP/2: RFC 9113, section 3.4. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** Flow-control window of an HTTP/2 connection, for all calls, in bytes. */
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;

/**
 * Flow-control window of one call, in bytes. Node.js returns credit to the connection before a handler has read, so that
 * the windows of all calls together bound what is buffered: they get smaller as calls and connections get more.
 */
const MAX_STREAM_WINDOW_BYTES = 1024 * 1024;
const MIN_STREAM_WINDOW_BYTES = 8 * 1024;
const ALL_WINDOWS_BYTES = 8 * 1024 * 1024;

/** How long a frame of a request may be, in bytes: each one costs time, however long it is. */
const MAX_FRAME_BYTES = 256 * 1024;

/** Limits for calls of one connection, and of all. A stream beyond them is refused, which clients try again. */
const MAX_CALLS_PER_CONNECTION = 256;
const MAX_CALLS = 4096;

/**
 * Limit of header tables and unsent data of an HTTP/2 connection, in megabytes; in effect, none. Node counts unsent data
 * of cancelled calls until the connection ends, and a connection over the limit refuses every further call. The windows
 * and the number of calls bound the memory that is really held.
 */
const MAX_SESSION_MEMORY_MB = 1_000_000;

/** Limits for cancelled calls, at once and per second. Every partial read is a cancelled call. */
const RESET_BURST = 10_000;
const RESETS_PER_SECOND = 1_000;

/** Longest header of a request over HTTP/1.1, in bytes. That of HTTP/2 is Node's. */
const MAX_HEADER_BYTES = 64 * 1024;

/** Idle time limit of an HTTP/1.1 connection. */
const KEEP_ALIVE_MS = 60_000;

/** Time limit for sending the last frame of a connection that is terminated. */
const FAREWELL_MS = 200;

/** Time limit for a peer to close its side after ours. */
const LINGER_MS = 5_000;

type Connection =
  | { readonly kind: "new" }
  | { readonly kind: "http1"; readonly responses: Set<ServerResponse> }
  | { readonly kind: "http2"; readonly session: ServerHttp2Session };

const NEW: Connection = { kind: "new" };

/**
 * Serves HTTP/2 and HTTP/1.1 on the same port. The first bytes of a connection tell the version, or what was agreed on in
 * the handshake of TLS.
 */
export class OnePort {
  readonly #connections = new Map<Socket, Connection>();
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #peers = new WeakMap<Http2Session, string>();
  readonly #handlers: HttpHandlers;
  readonly #onProtocolError: (error: Error, peer: string) => void;
  readonly #headerTimeoutMs: number;
  readonly #idleMs: number;
  readonly #keepAliveMs: number;
  readonly #keepAliveTimeoutMs: number;
  #closing = false;
  /** How many calls are under way over HTTP/2, and the window that each has. */
  #calls = 0;
  #windowBytes = MAX_STREAM_WINDOW_BYTES;

  constructor(options: OnePortOptions) {
    this.#handlers = options.handlers;
    this.#onProtocolError = options.onProtocolError ?? (() => undefined);
    this.#headerTimeoutMs = options.headerTimeoutMs ?? 10_000;
    this.#idleMs = options.idleMs ?? 600_000;
    this.#keepAliveMs = options.keepAliveMs ?? 60_000;
    this.#keepAliveTimeoutMs = options.keepAliveTimeoutMs ?? 20_000;
    this.#http1 = this.#createHttp1();
    this.#http2 = this.#createHttp2();
  }

  /** Takes a new connection. Its socket allows half-open connections. */
  accept(socket: Socket): void {
    this.#connections.set(socket, NEW);
    // Every error also closes the connection, and "close" is handled.
    socket.on("error", () => undefined);
    socket.once("close", () => this.#connections.delete(socket));
    socket.once("finish", () => {
      const linger = setTimeout(() => socket.destroy(), LINGER_MS).unref();
      socket.once("close", () => clearTimeout(linger));
    });
    if (this.#closing) socket.destroy();
    else if (!(socket instanceof TLSSocket)) this.#peek(socket);
    else if (socket.alpnProtocol === "h2") this.#serveHttp2(socket);
    else this.#serveHttp1(socket);
  }

  /** Returns how many connections there are, and how many calls and requests are in progress. */
  load(): { readonly connections: number; readonly calls: number } {
    let calls = this.#calls;
    for (const connection of this.#connections.values()) {
      if (connection.kind === "http1") calls += connection.responses.size;
    }
    return { connections: this.#connections.size, calls };
  }

  /** Ends every connection once its calls have finished. New calls are refused. */
  close(): void {
    this.#closing = true;
    for (const [socket, connection] of this.#connections) {
      if (connection.kind === "new") socket.destroy();
      else if (connection.kind === "http2") connection.session.close();
      else closeHttp1(socket, connection.responses);
    }
    this.#http1.close(); // ends its check of header timeouts
  }

  /** Ends every connection at once, with its calls. */
  destroy(): void {
    this.#closing = true;
    for (const [socket, connection] of this.#connections) {
      if (connection.kind !== "http2") {
        socket.destroy();
        continue;
      }
      // With a code: after the GOAWAY of close(), a client may take a connection that ends without one for a
      // call that is still in flight.
      connection.session.destroy(undefined, constants.NGHTTP2_CANCEL);
      setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
    }
    this.#http1.close();
  }

  #peek(socket: Socket): void {
    let head: Buffer = Buffer.alloc(0);
    const drop = () => socket.destroy();
    const timer = setTimeout(drop, this.#headerTimeoutMs);
    const stop = () => {
      clearTimeout(timer);
      socket.off("readable", onReadable);
      socket.off("end", drop);
      socket.off("close", stop);
    };
    const onReadable = () => {
      const chunk: Buffer | null = socket.read();
      if (chunk === null) return;
      head = Buffer.concat([head, chunk]);
      const length = Math.min(head.length, PREFACE.length);
      const http2 = head.compare(PREFACE, 0, length, 0, length) === 0;
      if (http2 && length < PREFACE.length) return;
      stop();
      socket.unshift(head);
      if (http2) this.#serveHttp2(socket);
      else this.#serveHttp1(socket);
    };
    socket.on("readable", onReadable);
    socket.once("end", drop);
    socket.once("close", stop);
  }

  #serveHttp1(socket: Socket): void {
    this.#connections.set(socket, { kind: "http1", responses: new Set() });
    this.#http1.emit("connection", socket);
  }

  #serveHttp2(socket: Socket): void {
    // An HTTP/2 session on a half-open connection would never end.
    socket.allowHalfOpen = false;
    const peer = peerOf(socket);
    this.#http2.once("session", (session) => {
      this.#connections.set(socket, { kind: "http2", session });
      this.#adaptWindows();
      this.#peers.set(session, peer);
      session.once("error", (error) => this.#onProtocolError(error, peer));
      this.#endIdle(session);
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
      if (this.#windowBytes > MIN_STREAM_WINDOW_BYTES) {
        session.settings({ initialWindowSize: this.#windowBytes });
      }
      new Heartbeat(session, {
        idleMs: this.#keepAliveMs,
        timeoutMs: this.#keepAliveTimeoutMs,
        onSilence: () => session.destroy(undefined, constants.NGHTTP2_CANCEL),
      });
    });
    this.#http2.emit("connection", socket);
  }

  /** Ends a connection whose client does not begin it, or has no call for long, such as one that never ends a header. */
  #endIdle(session: ServerHttp2Session): void {
    const silent = setTimeout(() => session.destroy(), this.#headerTimeoutMs);
    session.once("remoteSettings", () => clearTimeout(silent));
    let calls = 0;
    const end = () => {
      session.close();
      // It is not closed while a header is not complete.
      idle = setTimeout(() => session.destroy(), this.#headerTimeoutMs).unref();
    };
    let idle = setTimeout(end, this.#idleMs).unref();
    session.on("stream", (stream) => {
      calls += 1;
      clearTimeout(idle);
      stream.once("close", () => {
        calls -= 1;
        if (calls === 0 && !session.destroyed) idle = setTimeout(end, this.#idleMs).unref();
      });
    });
    session.once("close", () => {
      clearTimeout(silent);
      clearTimeout(idle);
    });
  }

  /** Adapts the windows to the number of calls, and of connections, each of which may begin one. */
  #adaptWindows(): void {
    const count = Math.max(this.#calls, this.#connections.size, 1);
    const share = 2 ** Math.floor(Math.log2(ALL_WINDOWS_BYTES / count));
    const wanted = Math.min(Math.max(share, MIN_STREAM_WINDOW_BYTES), MAX_STREAM_WINDOW_BYTES);
    // A window grows to four times its size at least, not with every call that comes and goes.
    const isNear = wanted === this.#windowBytes * 2 && count > 1;
    if (wanted === this.#windowBytes || isNear) return;
    this.#windowBytes = wanted;
    for (const connection of this.#connections.values()) {
      if (connection.kind !== "http2" || connection.session.destroyed) continue;
      // One that has not acknowledged the last change may be stopped, and too many changes would end it.
      if (connection.session.pendingSettingsAck) continue;
      connection.session.settings({ initialWindowSize: wanted });
    }
  }

  #createHttp1(): Http1Server {
    const server = createHttp1Server({
      headersTimeout: this.#headerTimeoutMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      connectionsCheckingInterval: Math.min(1_000, this.#headerTimeoutMs),
      keepAliveTimeout: KEEP_ALIVE_MS,
      requestTimeout: 0, // an upload takes as long as it takes
      optimizeEmptyRequests: true, // to end the body of a request without one takes as long as to find a narinfo
    });
    const onRequest = (request: IncomingMessage, response: ServerResponse) => {
      const { socket } = request;
      const connection = this.#connections.get(socket);
      if (connection?.kind !== "http1") return;
      connection.responses.add(response);
      response.once("close", () => {
        connection.responses.delete(response);
        if (this.#closing) closeHttp1(socket, connection.responses);
      });
      if (this.#closing) response.setHeader("Connection", "close");
      this.#handlers.onRequest(request, response);
    };
    server.on("request", onRequest).on("checkContinue", onRequest);
    // Whoever is answered may take longer than that.
    server.on("timeout", (socket: Socket) => {
      const connection = this.#connections.get(socket);
      if (connection?.kind !== "http1" || connection.responses.size === 0) socket.destroy();
    });
    // This server never listens, and the event starts its check of timeouts.
    server.emit("listening");
    return server;
  }

  #createHttp2(): Http2Server {
    const server = createHttp2Server({
      settings: {
        initialWindowSize: MIN_STREAM_WINDOW_BYTES, // it grows where there is room
        maxConcurrentStreams: MAX_CALLS_PER_CONNECTION,
        maxFrameSize: MAX_FRAME_BYTES,
      },
      maxSessionMemory: MAX_SESSION_MEMORY_MB,
      streamResetBurst: RESET_BURST,
      streamResetRate: RESETS_PER_SECOND,
    });
    // A second server, which never listens, turns streams into requests.
    const requests = createHttp2Server();
    const { onRequest } = this.#handlers;
    requests.on("request", onRequest).on("checkContinue", onRequest);
    server.on("stream", (stream, headers, ...rest) => {
      if (this.#calls >= MAX_CALLS) {
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      this.#calls += 1;
      this.#adaptWindows();
      stream.once("close", () => {
        this.#calls -= 1;
        this.#adaptWindows();
      });
      const peer = this.#peers.get(stream.session!) ?? "";
      if (this.#handlers.onStream(stream, headers, peer)) return;
      requests.emit("stream", stream, headers, ...rest);
    });
    return server;
  }
}

/** Ends an idle connection; has any other end after its calls. */
function closeHttp1(socket: Socket, responses: ReadonlySet<ServerResponse>): void {
  if (responses.size === 0) socket.destroySoon();
  for (const response of responses) {
    if (!response.headersSent) response.setHeader("Connection", "close");
  }
}

/** The other ends of connections: to format one takes as long as to find a narinfo. */
const peers = new WeakMap<Socket, string>();

/** Returns the other end of a connection as `host:port`, or `unix`. */
export function peerOf(socket: Socket): string {
  const known = peers.get(socket);
  if (known !== undefined) return known;
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return "unix";
  const peer = formatTcpAddress(remoteAddress, remotePort);
  peers.set(socket, peer);
  return peer;
}
