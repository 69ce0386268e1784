import type { AddressInfo } from "node:net";
import { CastoreError } from "@tvix/castore";
import { acceptingServer, listenError, listenerOf, startListening } from "./accepting-server.ts";
import type { InheritedSocket } from "./inherited-sockets.ts";
import { formatTcpAddress, isLoopback } from "./listen-address.ts";
import type { Listener, ListenerEvents } from "./listener.ts";

/**
 * Listens on inherited sockets.
 *
 * @param wanted the name of those to use. Default: all
 * @param sockets those to choose from; those that are used are removed
 */
export async function listenInherited(
  wanted: string | undefined,
  sockets: InheritedSocket[],
  events: ListenerEvents,
): Promise<readonly Listener[]> {
  const chosen = sockets.filter(({ name }) => wanted === undefined || name === wanted);
  if (chosen.length === 0) throw noSocket(wanted, sockets);
  const listeners: Listener[] = [];
  for (const socket of chosen) {
    sockets.splice(sockets.indexOf(socket), 1);
    listeners.push(await listenOn(socket, events));
  }
  return listeners;
}

async function listenOn({ fd, name }: InheritedSocket, events: ListenerEvents): Promise<Listener> {
  let bound: AddressInfo | undefined;
  const server = acceptingServer(
    {
      ...events,
      onConnection: (socket) => events.onConnection(socket, bound === undefined ? "unix" : "tcp"),
    },
    "unix",
  );
  const address = name === undefined ? "sd-listen" : `sd-listen:${name}`;
  try {
    await startListening(server, { fd });
  } catch (error) {
    throw listenError(address, error, `expected a stream socket as file descriptor ${fd}`);
  }
  bound = (server.address() as AddressInfo | null) ?? undefined;
  if (bound === undefined) return listenerOf(server, { address, isOpen: false });
  return listenerOf(server, {
    address: formatTcpAddress(bound.address, bound.port),
    isOpen: !isLoopback(bound.address),
  });
}

function noSocket(wanted: string | undefined, sockets: readonly InheritedSocket[]): CastoreError {
  const text = wanted === undefined ? "sd-listen" : `sd-listen:${wanted}`;
  const expected = `a socket ${wanted === undefined ? "" : `named "${wanted}" `}from systemd`;
  const names = sockets.map(({ name }) => `"${name ?? ""}"`).join(", ");
  const { LISTEN_PID } = process.env;
  const isForOther = LISTEN_PID !== undefined && Number(LISTEN_PID) !== process.pid;
  const none = isForOther
    ? `those of process ${LISTEN_PID} (LISTEN_PID), which is not this one`
    : "none that is not in use";
  return new CastoreError(
    "invalid_argument",
    `Cannot listen on "${text}": expected ${expected}, found ${names || none}; start the socket unit in place of the service, or try systemd-socket-activate`,
  );
}
