import { once } from "node:events";
import { chmodSync, statSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { dirname } from "node:path";
import { systemError } from "@tvix/castore";
import { DescriptorReceiver } from "../descriptors/descriptor-receiver.ts";
import type { PipeHandle } from "../descriptors/pipe-handle.ts";
import type { FileSystemOptions } from "../file-system.ts";
import { type MountedServices, StoreSource, type StoreSourceOptions } from "../store-source.ts";
import { GuestRequests } from "./guest-requests.ts";
import { GuestSession } from "./guest-session.ts";

/** Options of {@link serveGuests}. */
export interface ServeGuestsOptions extends FileSystemOptions, StoreSourceOptions {
  /** Is told of a connection that begins, and of its end. */
  readonly onGuest: (isConnected: boolean) => void;
  /** Is told of what virtual machines do wrong. */
  readonly onTrouble: (message: string) => void;
}

/**
 * Serves the store paths of services to virtual machines, read-only, by virtiofs: the process of a virtual machine connects
 * to the socket and speaks vhost-user. Several may at once. Disposing of it ends all connections and removes the socket.
 *
 * @param path where the socket is made
 * @throws CastoreError naming the path if it cannot be made, with a code by what the system says
 */
export async function serveGuests(
  path: string,
  services: MountedServices,
  options: ServeGuestsOptions,
): Promise<AsyncDisposable> {
  const sessions = new Set<GuestSession>();
  const ends = new Set<Promise<void>>();
  const serve = async (socket: Socket) => {
    const { _handle: handle } = socket as unknown as { _handle: PipeHandle };
    const source = new StoreSource(services, options);
    try {
      const receiver = await DescriptorReceiver.over(handle);
      const requests = new GuestRequests(source, options);
      const session = new GuestSession(receiver, requests, options.onTrouble);
      sessions.add(session);
      options.onGuest(true);
      socket.destroy(); // it has been taken over
      await session.serve();
      sessions.delete(session);
      options.onGuest(false);
    } catch (error) {
      options.onTrouble((error as Error).message);
    } finally {
      socket.destroy();
      await source[Symbol.asyncDispose]();
    }
  };
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    const end = serve(socket).finally(() => ends.delete(end));
    ends.add(end);
  });
  try {
    statSync(dirname(path)); // else the system says EACCES where the folder is missing
    server.listen(path);
    await once(server, "listening");
    chmodSync(path, 0o600);
  } catch (error) {
    throw systemError(error, `Cannot listen on ${JSON.stringify(path)}`);
  }
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      for (const session of sessions) session.close();
      await Promise.all(ends);
    },
  };
}
