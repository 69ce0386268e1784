import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { lstat, rename, rm, stat, unlink } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { CastoreError, type ErrorCode } from "@tvix/castore";
import {
  formatTcpAddress,
  type ListenAddress,
  type TcpListenAddress,
  type UnixListenAddress,
} from "./listen-address.ts";

/** A socket that accepts connections. */
export interface Listener {
  /** The address it is bound to, with the actual port, in the syntax of `--listen-address`. */
  readonly address: string;

  /**
   * Stops accepting connections at once and removes the file of a unix socket. Resolves when the last
   * accepted connection has ended.
   */
  close(): Promise<void>;
}

/** Callbacks of a listener. */
export interface ListenerEvents {
  /** Takes a new connection. Its socket allows half-open connections. */
  onConnection: (socket: Socket) => void;
  /** Takes the error of a connection that could not be accepted, such as EMFILE. The listener goes on. */
  onError: (error: Error) => void;
}

/** Idle time before the system sends TCP keep-alive probes. */
const KEEP_ALIVE_MS = 60_000;

/** Attempts to find a port that is free on both loopback addresses, if the system chooses it. */
const PORT_ATTEMPTS = 20;

const LOOPBACKS = ["127.0.0.1", "::1"];

/** Error codes of Linux, macOS and the BSDs for an address family that the machine does not have. */
const NO_SUCH_ADDRESS: readonly string[] = ["EADDRNOTAVAIL", "EAFNOSUPPORT"];

/**
 * Starts accepting connections on an address.
 *
 * `localhost` gives a listener for each of the two loopback addresses, on the same port, and skips
 * one that the machine does not have. A name gives one, for the first address it resolves to.
 *
 * A unix socket replaces the file of one whose process has ended. Its permissions follow the umask: with
 * the usual one, only the owner can connect.
 *
 * @throws CastoreError `unavailable` if the address is in use, `permission_denied` if the system
 *   refuses it, `invalid_argument` if it does not exist on this machine or is no socket
 */
export async function listen(
  address: ListenAddress,
  events: ListenerEvents,
): Promise<readonly Listener[]> {
  if (address.kind === "unix") return [await listenUnix(address, events)];
  if (address.host.toLowerCase() === "localhost") return listenLoopbacks(address, events);
  return [await listenTcp(address, events)];
}

async function listenLoopbacks(
  address: TcpListenAddress,
  events: ListenerEvents,
): Promise<readonly Listener[]> {
  for (let attempt = 1; ; attempt++) {
    const listeners: Listener[] = [];
    let port = address.port;
    let missing: unknown;
    try {
      for (const host of LOOPBACKS) {
        try {
          const listener = await listenTcp({ ...address, host, port }, events);
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
      // Not awaited: the port is free at once, whatever connections there are.
      for (const listener of listeners) void listener.close();
      const chosen = address.port === 0 && errno(error) === "EADDRINUSE";
      if (!chosen || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

async function listenTcp(
  { host, port }: TcpListenAddress,
  events: ListenerEvents,
): Promise<Listener & { readonly port: number }> {
  const server = newServer(events);
  try {
    server.listen({ host, port, exclusive: true });
    await once(server, "listening");
  } catch (error) {
    throw listenError(formatTcpAddress(host, port), error);
  }
  const bound = server.address() as AddressInfo;
  return {
    address: formatTcpAddress(bound.address, bound.port),
    port: bound.port,
    close: () => closed(server),
  };
}

/**
 * Binds the socket to a temporary name and renames it. The rename replaces a stale file in one step. At the close,
 * libuv unlinks only the temporary name, never a file that another process has put in our place meanwhile.
 */
async function listenUnix({ path }: UnixListenAddress, events: ListenerEvents): Promise<Listener> {
  const temporary = join(dirname(path), `.${randomBytes(4).toString("hex")}`);
  const server = newServer(events);
  try {
    await stat(dirname(path)); // else the system says EACCES where the folder is missing
    await assertReplaceable(path);
    server.listen({ path: temporary, exclusive: true });
    await once(server, "listening");
    await rename(temporary, path);
  } catch (error) {
    if (server.listening) await closed(server);
    await rm(temporary, { force: true });
    throw listenError(path, error);
  }
  const { dev, ino } = await lstat(path);
  return {
    address: path,
    close: async () => {
      const ended = closed(server);
      const now = await lstat(path).catch(() => undefined);
      if (now?.dev === dev && now.ino === ino) await unlink(path).catch(() => undefined);
      await ended;
    },
  };
}

/** Throws unless the path is free or holds the socket of a process that has ended. */
async function assertReplaceable(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot listen on "${path}": expected no file or a socket there, found another kind of file; remove it or choose another path`,
    );
  }
  const socket = connect(path);
  try {
    await once(socket, "connect");
  } catch (error) {
    if (["ECONNREFUSED", "ENOENT"].includes(errno(error))) return;
    throw error;
  } finally {
    socket.destroy();
  }
  throw new CastoreError(
    "unavailable",
    `Cannot listen on "${path}": a running process already listens there`,
  );
}

function newServer({ onConnection, onError }: ListenerEvents): Server {
  const server = createServer({
    // An HTTP/1.1 client may close its side once it has sent its request.
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  });
  server.on("connection", onConnection);
  server.once("listening", () => server.on("error", onError));
  return server;
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

function errno(error: unknown): string {
  const cause = error instanceof CastoreError ? error.cause : error;
  return (cause as NodeJS.ErrnoException | undefined)?.code ?? "";
}

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

function listenError(address: string, error: unknown): CastoreError {
  if (error instanceof CastoreError) return error;
  const [code, reason] = REASONS[errno(error)] ?? ["internal", "refused by the system"];
  const detail = error instanceof Error ? ` (${error.message})` : "";
  return new CastoreError(code, `Cannot listen on "${address}": ${reason}${detail}`, {
    cause: error,
  });
}
