import type { Step, Subject } from "../subject.ts";
import { LARGE_BLOB, SMALL_BLOBS } from "./blobs.ts";
import { clientCommand } from "./client.ts";

/** Name of the subject that goals compare gRPC with. */
export const PLAIN_HTTP2 = "node:http2 alone";

/** Moves as many bytes as `blobs` does by `node:http2` alone. */
export function plainHttp2(): Subject {
  const step = (name: string, operation: string, numbers: readonly number[]): Step => ({
    name,
    reportsWork: true,
    command: ({ socket }) =>
      clientCommand("plain-http2", operation, socket, ...numbers.map(String)),
  });
  return {
    name: PLAIN_HTTP2,
    needs: [],
    daemon: ({ socket }) => clientCommand("plain-http2", "serve", socket),
    steps: [
      step("Put one of 256 MB", "put", LARGE_BLOB),
      step("Read one of 256 MB", "read", LARGE_BLOB),
      step("Put 15 KB", "put", SMALL_BLOBS),
    ],
  };
}
