import { once } from "node:events";
import { createServer, type ListenOptions, type Server } from "node:net";
import { CastoreError, type ErrorCode } from "@tvix/castore";
import type { Listener, ListenerEvents, Transport } from "./listener.ts";

/** Idle time before the system sends TCP keep-alive probes. */
export const KEEP_ALIVE_MS = 60_000;

const REASONS: Readonly<Record<string, readonly [code: ErrorCode, reason: string]>> = {
  EADDRINUSE: ["unavailable", "already in use"],
  EACCES: ["permission_denied", "not permitted"],
  EPERM: ["permission_denied", "not permitted"],
  EADDRNOTAVAIL: ["invalid_argument", "expected an address of this machine"],
  EAFNOSUPPORT: ["invalid_argument", "expected an address of a family that this machine has"],
  ENOTFOUND: ["invalid_argument", "expected a name that resolves to an address"],
  EAI_AGAIN: ["unavailable", "the name cannot be resolved now"],
  ENOENT: ["invalid_argument", "expected a folder for the socket, found none"],
  ENOTDIR: ["invalid_argument", "expected a folder for the socket, found a file"],
};

/** Creates a server whose connections go to the callbacks of a listener. It does not listen yet. */
export function acceptingServer(
  { onConnection, onError, handsOver = false }: ListenerEvents,
  transport: Transport,
): Server {
  const server = createServer({
    // An HTTP/1.1 client may close its side once it has sent its request.
    allowHalfOpen: true,
    noDelay: true,
    pauseOnConnect: handsOver,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  });
  server.on("connection", (socket) => onConnection(socket, transport));
  server.once("listening", () => server.on("error", onError));
  return server;
}

/** Has a server listen; rejects with the error of the system. */
export async function startListening(
  server: Server,
  options: ListenOptions | { readonly fd: number },
): Promise<void> {
  server.listen({ ...options, exclusive: true } as ListenOptions);
  await once(server, "listening");
}

/**
 * Returns the listener of a server that listens.
 *
 * @param removeFile removes the file of a unix socket
 */
export function listenerOf(
  server: Server,
  properties: Pick<Listener, "address" | "isOpen">,
  removeFile: () => Promise<void> = async () => undefined,
): Listener {
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  let stopped: Promise<void> | undefined;
  return {
    ...properties,
    ended,
    stop() {
      if (stopped === undefined) {
        server.close(() => resolve());
        stopped = removeFile();
      }
      return stopped;
    },
  };
}

/** Returns the code of a system error, or of the one behind a CastoreError; an empty string for any other error. */
export function errno(error: unknown): string {
  const cause = error instanceof CastoreError ? error.cause : error;
  return (cause as NodeJS.ErrnoException | undefined)?.code ?? "";
}

/**
 * Returns the error for an address that cannot be listened on.
 *
 * @param advice what the user can do about it
 */
export function listenError(address: string, error: unknown, advice?: string): CastoreError {
  if (error instanceof CastoreError) return error;
  const [code, reason] = REASONS[errno(error)] ?? ["internal", "refused by the system"];
  const detail = error instanceof Error ? ` (${error.message})` : "";
  const action = advice === undefined ? "" : `; ${advice}`;
  return new CastoreError(code, `Cannot listen on "${address}": ${reason}${detail}${action}`, {
    cause: error,
  });
}
