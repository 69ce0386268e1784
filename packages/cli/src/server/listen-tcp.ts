import type { AddressInfo } from "node:net";
import {
  acceptingServer,
  errno,
  listenError,
  listenerOf,
  startListening,
} from "./accepting-server.ts";
import { formatTcpAddress, isLoopback } from "./listen-address.ts";
import type { Listener, ListenerEvents } from "./listener.ts";
import { portHolder } from "./port-holder.ts";

/** A listener on a TCP port. */
interface TcpListener extends Listener {
  readonly port: number;
}

/** Attempts to find a port that is free on both loopback addresses, if the system chooses it. */
const PORT_ATTEMPTS = 20;

const LOOPBACKS = ["127.0.0.1", "::1"];

/** Error codes of Linux, macOS and the BSDs for an address family that the machine does not have. */
const NO_SUCH_ADDRESS: readonly string[] = ["EADDRNOTAVAIL", "EAFNOSUPPORT"];

/** Ports below this one belong to the administrator, unless the system was told otherwise. */
const FIRST_FREE_PORT = 1024;

/** Listens on a port of both loopback addresses, as far as the machine has them. */
export async function listenLoopbacks(
  wanted: number,
  events: ListenerEvents,
): Promise<readonly Listener[]> {
  for (let attempt = 1; ; attempt++) {
    const listeners: Listener[] = [];
    let port = wanted;
    let missing: unknown;
    try {
      for (const host of LOOPBACKS) {
        try {
          const listener = await listenTcp({ host, port }, events);
          listeners.push(listener);
          port = listener.port;
        } catch (error) {
          if (!NO_SUCH_ADDRESS.includes(errno(error))) throw error;
          missing = error;
        }
      }
      if (listeners.length === 0) throw missing;
      return listeners;
    } catch (error) {
      await Promise.all(listeners.map((listener) => listener.stop()));
      const chosen = wanted === 0 && errno(error) === "EADDRINUSE";
      if (!chosen || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

/** Listens on a port of one host. */
export async function listenTcp(
  { host, port }: { readonly host: string; readonly port: number },
  events: ListenerEvents,
): Promise<TcpListener> {
  const server = acceptingServer(events, "tcp");
  try {
    await startListening(server, { host, port });
  } catch (error) {
    throw listenError(formatTcpAddress(host, port), error, await advice(error, port));
  }
  const bound = server.address() as AddressInfo;
  const address = formatTcpAddress(bound.address, bound.port);
  const listener = listenerOf(server, { address, isOpen: !isLoopback(bound.address) });
  return { ...listener, port: bound.port };
}

/** Returns what can be done about an error of listening on a port. */
async function advice(error: unknown, port: number): Promise<string | undefined> {
  if (errno(error) === "EADDRINUSE") {
    const holder = await portHolder(port);
    const stop = holder === undefined ? "stop the process that listens there" : `stop ${holder}`;
    return `${stop}, or choose another port with --listen-address`;
  }
  const isPrivileged = errno(error) === "EACCES" && port < FIRST_FREE_PORT;
  return isPrivileged
    ? `a port below ${FIRST_FREE_PORT} needs root, CAP_NET_BIND_SERVICE, or a socket of systemd (sd-listen)`
    : undefined;
}
