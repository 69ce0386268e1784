import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { temporaryFolder } from "./temporary-folder.ts";

/** A link to a unix socket that breaks. */
export interface CutLink extends AsyncDisposable {
  /** Where to connect to, in place of the socket. */
  readonly address: string;
  /** Number of bytes received from the server. */
  readonly bytes: number;
}

/**
 * Leads to a server of gRPC, and breaks every connection.
 *
 * @param limits after how many bytes from the server the connections break, one after the other; the last one is that
 *   of all others
 */
export async function cutLink(address: string, limits: readonly number[]): Promise<CutLink> {
  const folder = temporaryFolder();
  const sockets = new Set<Socket>();
  let connections = 0;
  let bytes = 0;
  const server = createServer((near) => {
    const far = connect(address.slice("grpc+unix://".length));
    let left = limits[Math.min(connections++, limits.length - 1)]!;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", end);
      socket.once("close", end);
    }
    near.pipe(far);
    far.on("data", (data) => {
      if (near.destroyed) return;
      bytes += data.length;
      left -= data.length;
      if (left < 0) end();
      else if (!near.write(data)) far.pause();
    });
    near.on("drain", () => far.resume());
  });
  server.listen(join(folder.path, "sock"));
  await once(server, "listening");
  return {
    address: `grpc+unix://${join(folder.path, "sock")}`,
    get bytes() {
      return bytes;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      folder[Symbol.dispose]();
    },
  };
}
