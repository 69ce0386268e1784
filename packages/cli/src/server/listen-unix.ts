import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, lstat, rename, rm, stat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { CastoreError } from "@tvix/castore";
import {
  acceptingServer,
  errno,
  listenError,
  listenerOf,
  startListening,
} from "./accepting-server.ts";
import type { Listener, ListenerEvents } from "./listener.ts";

/** Options of the files of unix sockets. */
export interface UnixSocketOptions {
  /** Whether to replace a socket on which another process listens. Default: only one whose process has ended. */
  unlink?: boolean | undefined;
  /** Permissions of the file. Whoever may write it can connect. Default: by the umask, which is the owner alone. */
  mode?: number | undefined;
}

const ADVICE = "stop it, choose another path, or take its place with --unix-listen-unlink";

/**
 * Listens on the path of a unix socket.
 *
 * Binds the socket to a temporary name and renames it. The rename replaces a stale file in one step. At the close,
 * libuv unlinks only the temporary name, never a file that another process has put in our place meanwhile.
 */
export async function listenUnix(
  path: string,
  events: ListenerEvents,
  { unlink: isReplaced = false, mode }: UnixSocketOptions,
): Promise<Listener> {
  const temporary = join(dirname(path), `.${randomBytes(4).toString("hex")}`);
  const server = acceptingServer(events, "unix");
  try {
    await stat(dirname(path)); // else the system says EACCES where the folder is missing
    await assertReplaceable(path, { isReplaced, advice: ADVICE });
    await startListening(server, { path: temporary });
    if (mode !== undefined) await chmod(temporary, mode);
    await rename(temporary, path);
  } catch (error) {
    server.close();
    await rm(temporary, { force: true });
    throw listenError(path, error);
  }
  const { dev, ino } = await lstat(path);
  return listenerOf(server, { address: path, isOpen: false }, async () => {
    const now = await lstat(path).catch(() => undefined);
    if (now?.dev === dev && now.ino === ino) await unlink(path).catch(() => undefined);
  });
}

/** Listens on a name in the abstract namespace, which everybody on the machine can connect to. */
export async function listenAbstract(name: string, events: ListenerEvents): Promise<Listener> {
  const server = acceptingServer(events, "unix");
  try {
    await startListening(server, { path: `\0${name}` });
  } catch (error) {
    const advice = "stop the process that listens there, or choose another name";
    throw listenError(`@${name}`, error, errno(error) === "EADDRINUSE" ? advice : undefined);
  }
  return listenerOf(server, { address: `@${name}`, isOpen: false });
}

/**
 * Throws unless a path is free or holds a socket that may be replaced.
 *
 * @param options.isReplaced whether a socket may be replaced on which another process listens. Default: false
 * @param options.advice what to do about one
 * @throws CastoreError `invalid_argument` for another kind of file, `unavailable` for a socket of another process
 */
export async function assertReplaceable(
  path: string,
  {
    isReplaced = false,
    advice = "stop it, or choose another path",
  }: { isReplaced?: boolean; advice?: string } = {},
): Promise<void> {
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
  if (isReplaced) return;
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
    `Cannot listen on "${path}": a running process already listens there; ${advice}`,
  );
}
