import { readFile } from "node:fs/promises";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  connect,
  constants,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from "node:http2";
import { connect as connectSocket } from "node:net";
import { Code } from "@connectrpc/connect";
import { TokenFile } from "../../address/token-file.ts";
import { systemReason } from "../../model/system-error.ts";
import { Heartbeat } from "./heartbeat.ts";
import { lookupHost } from "./lookup-host.ts";
import { RpcError } from "./rpc-error.ts";
import { tlsFailure } from "./tls-failure.ts";

/** How much of one response a server may send ahead of its reader, in bytes. */
const STREAM_WINDOW = 4 * 1024 * 1024;

/** The same for all responses of a connection. */
const CONNECTION_WINDOW = 16 * 1024 * 1024;

/** How long a frame may be that a server sends, in bytes: each one costs time, however long it is. */
const MAX_FRAME_SIZE = 256 * 1024;

/**
 * Methods whose requests are long and whose answers are short. They have a connection of their own: Node.js reads nothing of a
 * connection while something that it has written waits in the socket. Where both sides write more than their sockets hold, both
 * would wait for ever.
 */
const LONG_REQUESTS: ReadonlySet<string> = new Set([
  "/tvix.castore.v1.BlobService/Put",
  "/tvix.castore.v1.DirectoryService/Put",
  "/tvix.castore.v1alpha.BlobBatchService/FrameSizes",
  "/tvix.castore.v1alpha.BlobBatchService/Has",
  "/tvix.castore.v1alpha.BlobBatchService/Put",
  "/tvix.castore.v1alpha.BlobBatchService/PutFrames",
  "/tvix.castore.v1alpha.BlobBatchService/PutList",
  "/tvix.castore.v1alpha.BlobBatchService/Stat",
  "/tvix.castore.v1alpha.DirectoryBatchService/Has",
]);

/** A connection without a call is closed after this long. */
const IDLE_MS = 5 * 60_000;

/** What a server of gRPC says that takes PINGs for abuse: the interval has to be doubled. */
const TOO_MANY_PINGS = Buffer.from("too_many_pings");

const REQUEST_HEADERS: OutgoingHttpHeaders = {
  "content-type": "application/grpc+proto",
  te: "trailers",
};

const SESSION_OPTIONS: ClientSessionOptions & SecureClientSessionOptions = {
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

/** Options of {@link openChannel}. Times are in milliseconds. */
export interface ChannelOptions {
  /** After this long without a byte from the server, a PING asks whether it is there. Default: 30,000. */
  keepAliveMs?: number | undefined;
  /** How long the server may take to accept a connection, and to answer a PING. Default: 20,000. */
  timeoutMs?: number | undefined;
  /**
   * How long a call is tried again when the server, which was there before, cannot be reached: as long as it may take
   * to restart. 0 for not at all. Default: 60,000.
   */
  retryMs?: number | undefined;
  /**
   * Receives a message, without the address, when calls have waited a second for a server that cannot be reached any more:
   * once until it is there again. Default: nobody.
   */
  onWait?: ((message: string) => void) | undefined;
  /** Path of a file with an access token, which is sent with each call. Read again when it has changed. */
  tokenFile?: string | undefined;
  /** Paths of files in PEM, read for each connection. */
  tls?: TlsFiles | undefined;
}

/** Paths of files in PEM for the TLS of a client. */
interface TlsFiles {
  /** Certificates that sign those of servers. Default: those that Node.js knows. */
  ca?: string | undefined;
  /** The certificate of the client, for a server that asks for one. */
  cert?: string | undefined;
  /** The key of that certificate. */
  key?: string | undefined;
}

/** Why calls fail whose channel was closed. */
const CHANNEL_CLOSED = new RpcError(Code.Canceled, "the channel is closed");

/**
 * Connections to a gRPC server, shared by all calls: one for calls that send much, one for the others. Each is made when its
 * first call is, and made again when it broke.
 */
export interface Channel extends AsyncDisposable {
  /** The address of the server, as it was given. */
  readonly address: string;
  /** How often the server was connected to, and answered: the first connections for long requests and for others count as one. */
  readonly connections: number;
  /** How long calls may be tried again, in milliseconds. */
  readonly retryMs: number;
  /** Tells that calls wait for the server, unless that was told since it was there last. */
  tellWait(reason: string): void;
  /**
   * Begins a request of gRPC on a stream of the connection for its method.
   *
   * @param headers what it has beside those of gRPC
   * @throws RpcError `unavailable` if the server cannot be reached, `unauthenticated` if the file of the token or one
   *   of those for TLS cannot be used
   */
  request(path: string, headers?: OutgoingHttpHeaders): Promise<ClientHttp2Stream>;
}

/**
 * Makes a channel to an address: `grpc+http://host[:port]`, `grpc+https://host[:port]` or
 * `grpc+unix:///socket`. Nothing is connected yet.
 *
 * @param address a valid one without a query, see `openBlobService`
 */
export function openChannel(address: string, options?: ChannelOptions): Channel {
  return new Http2Channel(address, options);
}

/** What most bytes of a connection are: requests, or answers. */
type Direction = "up" | "down";

class Http2Channel implements Channel {
  readonly address: string;
  readonly retryMs: number;
  connections = 0;
  #keepAliveMs: number;
  readonly #timeoutMs: number;
  readonly #onWait: ChannelOptions["onWait"];
  /** How many connections there had been when it was told that calls wait. */
  #toldAt: number | undefined;
  readonly #token: TokenFile | undefined;
  readonly #tls: TlsFiles | undefined;
  readonly #current: Record<Direction, Promise<Connection> | undefined> = {
    up: undefined,
    down: undefined,
  };
  /** How many connections have been made on which the server answered. */
  readonly #made: Record<Direction, number> = { up: 0, down: 0 };
  readonly #open = new Set<Connection>();
  #isDisposed = false;

  constructor(address: string, options: ChannelOptions = {}) {
    this.address = address;
    this.retryMs = options.retryMs ?? 60_000;
    this.#keepAliveMs = options.keepAliveMs ?? 30_000;
    this.#timeoutMs = options.timeoutMs ?? 20_000;
    this.#onWait = options.onWait;
    this.#token = options.tokenFile === undefined ? undefined : new TokenFile(options.tokenFile);
    this.#tls = options.tls;
  }

  tellWait(reason: string): void {
    if (this.#toldAt === this.connections) return;
    this.#toldAt = this.connections;
    const seconds = Math.round(this.retryMs / 1000);
    this.#onWait?.(`${reason}; waiting up to ${seconds} s for the server to come back`);
  }

  async request(path: string, headers?: OutgoingHttpHeaders): Promise<ClientHttp2Stream> {
    const all: OutgoingHttpHeaders = {
      ...REQUEST_HEADERS,
      ...headers,
      ...(this.#token && { authorization: await this.#token.authorization().catch(refuseFile) }),
      ":method": "POST",
      ":path": path,
    };
    const direction = LONG_REQUESTS.has(path) ? "up" : "down";
    for (let attempt = 1; ; attempt++) {
      const current = this.#connection(direction);
      const connection = await current;
      const stream = connection.request(all);
      if (stream !== undefined) return stream;
      if (this.#current[direction] === current) this.#current[direction] = undefined; // it takes no more calls
      if (attempt === 3)
        throw unreachable(`the server at ${this.address} closes connections at once`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    for (const connection of this.#open) connection.destroy(CHANNEL_CLOSED);
  }

  #connection(direction: Direction): Promise<Connection> {
    if (this.#isDisposed) throw CHANNEL_CLOSED;
    this.#current[direction] ??= this.#connect(direction);
    return this.#current[direction];
  }

  #connect(direction: Direction): Promise<Connection> {
    const { promise, resolve, reject } = Promise.withResolvers<Connection>();
    const fail = (error: unknown) => {
      if (this.#current[direction] === promise) this.#current[direction] = undefined;
      reject(error);
    };
    const start = (tls: SecureClientSessionOptions) => {
      if (this.#isDisposed) return fail(CHANNEL_CLOSED);
      const connection = new Connection(this.address, {
        tls,
        keepAliveMs: this.#keepAliveMs,
        timeoutMs: this.#timeoutMs,
        onConnect: () => resolve(connection),
        wasThere: () => this.connections > 0,
        onAnswer: () => {
          this.#made[direction] += 1;
          if (this.connections === 0 || this.#made[direction] > 1) this.connections += 1;
        },
        onTooManyPings: () => {
          this.#keepAliveMs *= 2;
        },
        onEnd: (error) => {
          this.#open.delete(connection);
          fail(error);
        },
      });
      this.#open.add(connection);
    };
    if (this.#tls === undefined) start({});
    else readTlsFiles(this.#tls).then(start).catch(fail);
    return promise;
  }
}

interface ConnectionOptions {
  readonly tls: SecureClientSessionOptions;
  readonly keepAliveMs: number;
  readonly timeoutMs: number;
  readonly onConnect: () => void;
  /** Tells whether the server has answered on any connection so far. */
  readonly wasThere: () => boolean;
  /** Is called when the server has sent its first frame, its settings. */
  readonly onAnswer: () => void;
  readonly onTooManyPings: () => void;
  /** Is called when the connection has ended, or could not be made: with an error then. */
  readonly onEnd: (error: unknown) => void;
}

/** One connection of a channel. */
class Connection {
  readonly #session: ClientHttp2Session;
  readonly #options: ConnectionOptions;
  readonly #address: string;
  #heartbeat: Heartbeat | undefined;
  #isConnected = false;
  #calls = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(address: string, options: ConnectionOptions) {
    this.#options = options;
    this.#address = address;
    const session = openSession(address, options.tls);
    this.#session = session;
    let failure: unknown;
    const silent = `the server at ${address} did not answer within ${options.timeoutMs} ms`;
    const unanswered = setTimeout(() => this.destroy(unreachable(silent)), options.timeoutMs);
    session.once("connect", (_session, socket) => {
      // Node.js does not close the session when its socket fails before anything was read, as by an alert of TLS.
      socket.once("error", () => socket.destroy());
      if (session.destroyed) return;
      session.setLocalWindowSize(CONNECTION_WINDOW);
      this.#heartbeat = this.#watch();
      this.#rest();
    });
    // Calls wait for the windows that the server offers: it may have many clients, each of which could send 64 KiB before.
    session.once("remoteSettings", () => {
      clearTimeout(unanswered);
      this.#isConnected = true;
      options.onConnect();
      options.onAnswer();
    });
    session.on("error", (error) => {
      failure ??= error;
    });
    session.once("goaway", (_code, _lastStreamId, data: Buffer | undefined) => {
      if (data !== undefined && TOO_MANY_PINGS.equals(data)) options.onTooManyPings();
    });
    session.once("close", () => {
      clearTimeout(unanswered);
      clearTimeout(this.#idle);
      if (this.#isConnected) return options.onEnd(undefined);
      const refusal = tlsFailure(failure);
      if (refusal !== undefined) options.onEnd(unreachable(refusal, failure));
      else options.onEnd(failure ?? unreachable(this.#whyClosed()));
    });
  }

  /** Begins a request; `undefined` if the connection takes no more of them. */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream | undefined {
    const session = this.#session;
    if (session.closed || session.destroyed) return undefined;
    const stream = session.request(headers);
    clearTimeout(this.#idle);
    if (this.#calls++ === 0) {
      session.ref();
      if (session.remoteSettings !== undefined) this.#heartbeat?.check();
    }
    stream.once("close", () => {
      if (--this.#calls === 0) this.#rest();
    });
    return stream;
  }

  destroy(reason: Error): void {
    this.#session.destroy(reason, constants.NGHTTP2_CANCEL);
  }

  #whyClosed(): string {
    const reason = `the server at ${this.#address} closed the connection`;
    const mayTakeTls = this.#address.startsWith("grpc+http:") && !this.#options.wasThere();
    return mayTakeTls ? `${reason}; if it takes TLS, name it with grpc+https` : reason;
  }

  /** Keeps no process alive while there is no call, and ends the connection if there is none for long. */
  #rest(): void {
    if (this.#session.destroyed) return;
    this.#session.unref();
    this.#idle = setTimeout(() => this.#session.close(), IDLE_MS).unref();
  }

  #watch(): Heartbeat {
    const { keepAliveMs, timeoutMs } = this.#options;
    return new Heartbeat(this.#session, {
      idleMs: keepAliveMs,
      timeoutMs,
      isNeeded: () => this.#calls > 0,
      onSilence: () => {
        const silent = `the server at ${this.#address} did not answer a PING within ${timeoutMs} ms`;
        this.destroy(unreachable(silent));
      },
    });
  }
}

function openSession(address: string, tls: SecureClientSessionOptions): ClientHttp2Session {
  const url = new URL(address.slice("grpc+".length));
  if (url.protocol !== "unix:") {
    const options = { ...SESSION_OPTIONS, ...tls, lookup: lookupHost };
    return connect(url.origin, options);
  }
  const path = decodeURIComponent(url.pathname);
  return connect("http://localhost", {
    ...SESSION_OPTIONS,
    createConnection: () => connectSocket(path),
  });
}

async function readTlsFiles(files: TlsFiles): Promise<SecureClientSessionOptions> {
  const read = async (what: "ca" | "cert" | "key") => {
    const path = files[what];
    if (path === undefined) return {};
    try {
      return { [what]: await readFile(path) };
    } catch (error) {
      const reason = systemReason(error as NodeJS.ErrnoException);
      return refuseFile(new Error(`Cannot read TLS ${what} "${path}": ${reason}`));
    }
  };
  return { ...(await read("ca")), ...(await read("cert")), ...(await read("key")) };
}

function refuseFile(error: Error): never {
  throw new RpcError(Code.Unauthenticated, error.message, { cause: error });
}

function unreachable(reason: string, cause?: unknown): RpcError {
  return new RpcError(Code.Unavailable, reason, { cause });
}
