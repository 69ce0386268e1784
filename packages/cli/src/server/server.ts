import type { Socket } from "node:net";
import { CallBudget, type ServedService } from "@tvix/castore/rpc";
import { Health } from "@tvix/proto/health";
import type { Logger } from "pino";
import type { ServerMetrics } from "../telemetry/server-metrics.ts";
import { Guard } from "./access/guard.ts";
import { registerHealth } from "./health.ts";
import { type AdmittedHandler, guardRequests } from "./http-guard.ts";
import type { Listener, ListenerEvents } from "./listener.ts";
import { OnePort, peerOf } from "./one-port.ts";
import { registerReflection } from "./reflection.ts";
import { createRpcHandler } from "./rpc-handler.ts";
import { type TlsFiles, TlsFront } from "./tls-front.ts";

/** Options of {@link startServer}. */
export interface ServerOptions {
  /**
   * Starts to accept connections, on addresses or otherwise.
   *
   * @throws CastoreError for an address that is refused; then none is listened on
   */
  listen: (events: ListenerEvents) => Promise<readonly Listener[]>;
  /** The services to serve. Health and reflection are added. */
  services: readonly ServedService[];
  /** Answers and logs requests that are no calls. Default: 404. */
  onOther?: AdmittedHandler;
  /** Admits calls, and requests that are none. Default: one that admits all. */
  guard?: Guard;
  /** Serves TLS on every address that is no unix socket. Default: no TLS. */
  tls?: TlsFiles;
  /** Takes metrics of calls. Default: nothing does. */
  metrics?: ServerMetrics;
  /**
   * Receives a line for each call: `debug`, `warn` for failures of the server and refused writes, `trace` for health and
   * reflection.
   */
  logger: Logger;
  /** Time limit for the first bytes and for a request header, in milliseconds. Default: 10,000. */
  headerTimeoutMs?: number;
  /** How long a client may send nothing of a request that is not complete, in milliseconds. Default: 120,000. */
  bodyTimeoutMs?: number;
  /** After this long without a call, an HTTP/2 connection is ended, in milliseconds. Default: 10 minutes. */
  idleMs?: number;
  /** After this long without a byte from an HTTP/2 client, a PING asks whether it is there. Default: 60 seconds. */
  keepAliveMs?: number;
  /** How long it may take to answer. Then its connection is ended. Default: 20 seconds. */
  keepAliveTimeoutMs?: number;
}

/** A running server. Disposing terminates it. */
export interface Server extends AsyncDisposable {
  /**
   * The addresses it is bound to, with actual ports, in the syntax of `--listen-address`. `localhost`
   * appears as the loopback addresses that the machine has.
   */
  readonly addresses: readonly string[];

  /** Those of them that clients of other machines can connect to. */
  readonly openAddresses: readonly string[];

  /** Resolves once there can be no further connection, as after that of inetd. Usually never. */
  readonly exhausted: Promise<void>;

  /**
   * Shuts down: accepts no more connections and calls, reports NOT_SERVING, and waits for the calls in
   * flight, however long they take. Resolves when the last connection has ended.
   */
  shutdown(): Promise<void>;

  /**
   * Reads the files of TLS again, for connections to come.
   *
   * @throws CastoreError `invalid_argument` for files that cannot be used; the old ones stay in use
   */
  reloadTls(): Promise<void>;

  /** Stops at once: calls in flight fail. Also ends a {@link shutdown} in progress. */
  terminate(): Promise<void>;
}

/**
 * Serves gRPC, gRPC-web and Connect, and other requests, over HTTP/2 without TLS and over HTTP/1.1, on every address.
 * Resolves once all of them accept connections. If one is refused, none is listened on.
 *
 * @throws CastoreError `invalid_argument` for an address that cannot be parsed or is not of this
 *   machine, `unavailable` for one in use, `permission_denied` for one that the system refuses
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const { logger, keepAliveMs, keepAliveTimeoutMs, idleMs } = options;
  const { guard = new Guard(), headerTimeoutMs = 10_000, bodyTimeoutMs = 120_000 } = options;
  const stopping = new AbortController();
  const budget = new CallBudget();
  const services = [...options.services.map(({ service }) => service), Health];
  const port = new OnePort({
    handlers: createRpcHandler({
      services: options.services,
      routes(router) {
        registerHealth(router, { services, stopping: stopping.signal });
        registerReflection(router, { services, stopping: stopping.signal });
      },
      ...{ logger, guard, bodyTimeoutMs, budget },
      metrics: options.metrics?.calls,
      onOther:
        options.onOther &&
        guardRequests(options.onOther, {
          guard,
          logger,
          bodyTimeoutMs,
          metrics: options.metrics?.requests,
        }),
    }),
    onProtocolError(err, peer) {
      logger.debug({ err, peer }, "connection failed");
    },
    headerTimeoutMs,
    ...(idleMs !== undefined && { idleMs }),
    ...(keepAliveMs !== undefined && { keepAliveMs }),
    ...(keepAliveTimeoutMs !== undefined && { keepAliveTimeoutMs }),
  });

  options.metrics?.observe(() => {
    const { running: uploads, waiting: uploadsWaiting } = guard.uploads.load();
    const { bytes: callBytes, waiting: callsWaiting } = budget.load();
    return { ...port.load(), uploads, uploadsWaiting, callBytes, callsWaiting };
  });

  const onConnection = (socket: Socket) => port.accept(socket);
  const tls =
    options.tls &&
    (await TlsFront.open({
      files: options.tls,
      handshakeTimeoutMs: headerTimeoutMs,
      onConnection,
      onHandshakeError: (err, socket) =>
        logger.info({ err, peer: peerOf(socket) }, "TLS handshake failed"),
    }));
  let listeners: readonly Listener[] = [];
  let closed: Promise<unknown> | undefined;
  const close = () => {
    closed ??= Promise.all(
      listeners.map(async (listener) => {
        await listener.stop();
        await listener.ended;
      }),
    );
    return closed;
  };
  const terminate = async () => {
    stopping.abort();
    const ended = close();
    port.destroy();
    tls?.close();
    await ended;
  };

  try {
    listeners = await options.listen({
      onConnection(socket, transport) {
        if (tls && transport === "tcp") tls.accept(socket);
        else onConnection(socket);
      },
      onError: (err) => logger.warn({ err }, "cannot accept a connection"),
    });
  } catch (error) {
    await terminate();
    throw error;
  }
  return {
    addresses: listeners.map(({ address }) => address),
    openAddresses: listeners.filter(({ isOpen }) => isOpen).map(({ address }) => address),
    exhausted: Promise.all(
      listeners.map(({ exhausted }) => exhausted ?? new Promise<void>(() => undefined)),
    ).then(() => undefined),
    async shutdown() {
      stopping.abort();
      const ended = close();
      port.close();
      tls?.close();
      await ended;
    },
    terminate,
    async reloadTls() {
      await tls?.reload();
    },
    [Symbol.asyncDispose]: terminate,
  };
}
