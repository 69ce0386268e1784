/**
 * Serves an empty binary cache that accepts every upload and drops it: a push to it takes the time of Nix alone.
 *
 *   upload-sink.ts PORT SOCKET
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

const CACHE_INFO = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 39\n";

const [port, socket] = process.argv.slice(2) as [string, string];

function answer(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === "PUT") {
    request.resume().once("end", () => response.writeHead(201).end());
  } else if (request.url === "/nix-cache-info") {
    response.end(CACHE_INFO);
  } else {
    response.writeHead(404).end();
  }
}

// The bench looks at the socket, Nix knows ports only.
for (const address of [Number(port), socket]) createServer(answer).listen(address);
process.once("SIGTERM", () => process.exit());
