import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import { CastoreError } from "@tvix/castore";
import type { Listener, ListenerEvents } from "./listener.ts";

/** Serves the one connection that is on stdin; there are no others. */
export function listenStdio({ onConnection }: ListenerEvents): Listener {
  if (!fstatSync(0).isSocket()) {
    throw new CastoreError(
      "invalid_argument",
      'Cannot serve "inetd": expected a connection on stdin, found no socket; start it by inetd, or by systemd with Accept=yes',
    );
  }
  const socket = new Socket({ fd: 0, readable: true, writable: true, allowHalfOpen: true });
  const ended = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.setNoDelay(true);
  onConnection(socket, socket.remoteAddress === undefined ? "unix" : "tcp");
  return {
    address: "inetd",
    isOpen: false, // whoever started this process decides who can connect
    exhausted: ended,
    stop: async () => undefined,
    ended,
  };
}

/** Tells whether stderr is the connection on stdin, as inetd starts processes: nothing else may be written to it. */
export function isStderrTheConnection(): boolean {
  const [input, errors] = [fstatSync(0), fstatSync(2)];
  return input.isSocket() && input.dev === errors.dev && input.ino === errors.ino;
}
