import { join } from "node:path";
import type { Step, Subject } from "../subject.ts";
import { clientCommand } from "./client.ts";
import { daemonAddress, daemonCommand, type TvixStore } from "./tvix-store.ts";

/** Blobs that are sent: length in bytes, how many, and how many at a time. */
export const LARGE_BLOB: readonly number[] = [256_000_000, 1, 1];
export const SMALL_BLOBS: readonly number[] = [15_000, 10_000, 16];

/**
 * Puts blobs to a daemon, and reads them back: one large one, and many small ones.
 *
 * @param source the file that the bytes are taken of
 */
export function blobs(program: TvixStore, source: string): Subject {
  const step = (name: string, operation: string, numbers: readonly number[]): Step => ({
    name,
    reportsWork: true,
    command: ({ folder, socket }) => {
      const digests = join(folder, `${numbers.join("-")}.digests`);
      const args = [daemonAddress(socket), digests, source, ...numbers.map(String)];
      return clientCommand("blobs", operation, ...args);
    },
  });
  return {
    name: `${program.name} daemon`,
    needs: [program.argv[0]!],
    profiled: program.profiled,
    daemon: (place) => daemonCommand(program, place),
    steps: [
      step("Put one of 256 MB", "put", LARGE_BLOB),
      step("Read one of 256 MB", "read", LARGE_BLOB),
      step("Put 15 KB", "put", SMALL_BLOBS),
      step("Read 15 KB", "read", SMALL_BLOBS),
    ],
  };
}
