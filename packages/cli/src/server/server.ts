import type { ServedService } from "@tvix/castore/rpc";
import { Health } from "@tvix/proto/health";
import type { Logger } from "pino";
import { registerHealth } from "./health.ts";
import { parseListenAddress } from "./listen-address.ts";
import { type Listener, type ListenerEvents, listen } from "./listener.ts";
import { OnePort } from "./one-port.ts";
import { registerReflection } from "./reflection.ts";
import { createRpcHandler } from "./rpc-handler.ts";

/** Options of {@link startServer}. */
export interface ServerOptions {
  /** Where to listen, at least one, in the syntax of {@link parseListenAddress}. */
  addresses: readonly string[];
  /** What is served. Health and reflection are added. */
  services: readonly ServedService[];
  /** Gets one line per call: `info`, `warn` where the server failed, `debug` for health and reflection. */
  logger: Logger;
  /** How long a client may take to send its first bytes, or a request header. Default: 10 seconds. */
  headerTimeoutMs?: number;
  /** After this long without a byte from an HTTP/2 client, a PING asks whether it is there. Default: 60 seconds. */
  keepAliveMs?: number;
  /** How long it may take to answer. Then its connection is ended. Default: 20 seconds. */
  keepAliveTimeoutMs?: number;
}

/** A server that runs. Disposing terminates it. */
export interface Server extends AsyncDisposable {
  /**
   * What it is bound to, with real ports, in the syntax of {@link parseListenAddress}. `localhost`
   * shows as the loopback addresses that the machine has.
   */
  readonly addresses: readonly string[];

  /**
   * Stops: accepts no more connections and calls, reports itself as not serving, lets the calls that
   * have begun finish, however long they take, and resolves when the last connection has ended.
   */
  shutdown(): Promise<void>;

  /** Stops at once: calls that have begun fail. Also ends a {@link shutdown} that is under way. */
  terminate(): Promise<void>;
}

/**
 * Serves gRPC, gRPC-web and Connect, over HTTP/2 without TLS and over HTTP/1.1, on every address.
 * Resolves once all of them accept connections; listens on none of them if one is refused.
 *
 * @throws CastoreError `invalid_argument` for an address that cannot be parsed or is not of this
 *   machine, `unavailable` for one in use, `permission_denied` for one that the system refuses
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const { logger, headerTimeoutMs, keepAliveMs, keepAliveTimeoutMs } = options;
  const addresses = options.addresses.map(parseListenAddress);
  const stopping = new AbortController();
  const services = [...options.services.map(({ service }) => service), Health];
  const port = new OnePort({
    handlers: createRpcHandler({
      services: options.services,
      routes(router) {
        registerHealth(router, { services, stopping: stopping.signal });
        registerReflection(router, { services, stopping: stopping.signal });
      },
      logger,
    }),
    onProtocolError(err, peer) {
      logger.debug({ err, peer }, "connection failed");
    },
    ...(headerTimeoutMs !== undefined && { headerTimeoutMs }),
    ...(keepAliveMs !== undefined && { keepAliveMs }),
    ...(keepAliveTimeoutMs !== undefined && { keepAliveTimeoutMs }),
  });

  const events: ListenerEvents = {
    onConnection: (socket) => port.accept(socket),
    onError: (err) => logger.warn({ err }, "cannot accept a connection"),
  };
  const listeners: Listener[] = [];
  let closed: Promise<unknown> | undefined;
  const close = () => {
    closed ??= Promise.all(listeners.map((listener) => listener.close()));
    return closed;
  };
  const terminate = async () => {
    stopping.abort();
    const ended = close();
    port.destroy();
    await ended;
  };

  try {
    for (const address of addresses) {
      listeners.push(...(await listen(address, events)));
    }
  } catch (error) {
    await terminate();
    throw error;
  }
  return {
    addresses: listeners.map(({ address }) => address),
    async shutdown() {
      stopping.abort();
      const ended = close();
      port.close();
      await ended;
    },
    terminate,
    [Symbol.asyncDispose]: terminate,
  };
}
