import { once } from "node:events";
import { constants, createServer, type ServerHttp2Session } from "node:http2";
import { join } from "node:path";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import {
  answerDirectly,
  CallBudget,
  type CallObserver,
  directMethods,
  isDirect,
  registerServices,
  type ServedService,
} from "@tvix/castore/rpc";
import { temporaryFolder } from "./temporary-folder.ts";

/** Windows of a call and of a connection, as our server has them: a client may send more than a socket holds. */
const STREAM_WINDOW_BYTES = 256 * 1024;
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;

/** How calls are answered: straight on their streams, as our server does where it can, or by Connect. */
export type ServedBy = "streams" | "Connect";

/** Every {@link ServedBy}. */
export const SERVED_BY: readonly ServedBy[] = ["streams", "Connect"];

/** Serves services on a unix socket in a folder of its own. Disposing of it ends all connections. */
export async function serve(
  services: readonly ServedService[],
  by: ServedBy,
): Promise<AsyncDisposable & { readonly address: string }> {
  const folder = temporaryFolder();
  const socket = join(folder.path, "sock");
  const sessions = new Set<ServerHttp2Session>();
  const limits = {
    // Every read that ends early resets a stream: more of them than a browser would.
    streamResetBurst: 10_000,
    streamResetRate: 1_000,
    // Node.js counts the unsent bytes of a reset stream until the connection ends.
    maxSessionMemory: 1_000_000,
    settings: { initialWindowSize: STREAM_WINDOW_BYTES },
  };
  const server = createServer(limits);
  if (by === "Connect") {
    const routes = (router: ConnectRouter) => registerServices(router, services);
    server.on("request", connectNodeAdapter({ routes }));
  } else {
    const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
    const budget = new CallBudget();
    server.on("stream", (stream, headers) => {
      const method = methods.get(headers[":path"]!);
      if (method && isDirect(headers)) void answerDirectly(stream, method, observer(), budget);
      else stream.close(constants.NGHTTP2_REFUSED_STREAM);
    });
  }
  server.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    session.once("close", () => sessions.delete(session));
  });
  server.listen(socket);
  await once(server, "listening");
  return {
    address: `grpc+unix://${socket}`,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
      folder[Symbol.dispose]();
    },
  };
}

function observer(): CallObserver {
  const nothing = () => undefined;
  return { bytesIn: 0, bytesOut: 0, error: undefined, answered: nothing, end: nothing };
}

/** A service, the services that serve it, and the function that opens a client. */
export type Served<Service> = readonly [
  backend: Service,
  services: readonly ServedService[],
  connect: (address: string) => Promise<Service>,
];

/**
 * Clients, each with a connection of its own, of a service that is served over gRPC. The second one is
 * disposed of last, and disposes of the server and what is behind it too.
 */
export async function pairOverGrpc<Service extends AsyncDisposable>(
  ...[backend, services, connect, by]: readonly [...Served<Service>, by: ServedBy]
): Promise<readonly [Service, Service]> {
  const server = await serve(services, by);
  const [first, second] = await Promise.all([connect(server.address), connect(server.address)]);
  return [first, disposingOf(second, server, backend)];
}

/** A client of a service that is served over gRPC, which disposes of the server and what is behind it too. */
export async function overGrpc<Service extends AsyncDisposable>(
  ...[backend, services, connect, by]: readonly [...Served<Service>, by: ServedBy]
): Promise<Service> {
  const server = await serve(services, by);
  return disposingOf(await connect(server.address), server, backend);
}

/** A service that disposes of other things after itself. */
export function disposingOf<Service extends AsyncDisposable>(
  service: Service,
  ...others: readonly (Disposable | AsyncDisposable)[]
): Service {
  const dispose = service[Symbol.asyncDispose].bind(service);
  service[Symbol.asyncDispose] = async () => {
    await dispose();
    for (const other of others) {
      if (Symbol.asyncDispose in other) await other[Symbol.asyncDispose]();
      else other[Symbol.dispose]();
    }
  };
  return service;
}
