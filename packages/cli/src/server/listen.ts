import { type InheritedSocket, inheritedSockets } from "./inherited-sockets.ts";
import { type ListenAddress, parseListenAddress } from "./listen-address.ts";
import { listenInherited } from "./listen-inherited.ts";
import { listenStdio } from "./listen-stdio.ts";
import { listenLoopbacks, listenTcp } from "./listen-tcp.ts";
import { listenAbstract, listenUnix, type UnixSocketOptions } from "./listen-unix.ts";
import type { Listener, ListenerEvents } from "./listener.ts";

/**
 * Starts accepting connections on addresses, in the syntax of {@link parseListenAddress}. If one is refused, none is
 * listened on.
 *
 * `localhost` gives a listener for each of the two loopback addresses, on the same port, and skips
 * one that the machine does not have. Any other name gives one, for the first address it resolves to.
 *
 * @throws CastoreError `unavailable` if an address is in use, `permission_denied` if the system
 *   refuses it, `invalid_argument` if it does not exist on this machine or is no socket
 */
export async function listen(
  texts: readonly string[],
  events: ListenerEvents,
  unix: UnixSocketOptions = {},
): Promise<readonly Listener[]> {
  const addresses = texts.map(parseListenAddress);
  const inherited = inheritedSockets();
  const listeners: Listener[] = [];
  try {
    for (const address of addresses) {
      listeners.push(...(await listenOn(address, events, { unix, inherited })));
    }
    return listeners;
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.stop()));
    throw error;
  }
}

async function listenOn(
  address: ListenAddress,
  events: ListenerEvents,
  { unix, inherited }: { unix: UnixSocketOptions; inherited: InheritedSocket[] },
): Promise<readonly Listener[]> {
  switch (address.kind) {
    case "unix":
      return [await listenUnix(address.path, events, unix)];
    case "abstract":
      return [await listenAbstract(address.name, events)];
    case "inherited":
      return await listenInherited(address.name, inherited, events);
    case "stdio":
      return [listenStdio(events)];
    case "tcp":
      return address.host.toLowerCase() === "localhost"
        ? await listenLoopbacks(address.port, events)
        : [await listenTcp(address, events)];
  }
}
