import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectPipe, newPipe, type PipeHandle } from "./pipe-handle.ts";

/** Returns two connected sockets that descriptors can be sent over. */
export async function socketPair(): Promise<[PipeHandle, PipeHandle]> {
  const folder = mkdtempSync(join(tmpdir(), "tvix-store-")); // nobody else may connect
  const server = createServer({ pauseOnConnect: true });
  try {
    const path = join(folder, "socket");
    server.listen(path);
    await once(server, "listening");
    const near = newPipe("descriptors");
    const [[accepted]] = await Promise.all([once(server, "connection"), connectPipe(near, path)]);
    return [near, newPipe("descriptors", handleOf(accepted as Socket).fd)];
  } finally {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Returns the handle of an accepted socket. Its descriptor is taken over by another handle, or closed by its number, so it
 * must neither be used nor closed through the socket; it keeps no event loop running.
 */
function handleOf(socket: Socket): PipeHandle {
  socket.unref();
  return (socket as unknown as { _handle: PipeHandle })._handle;
}
