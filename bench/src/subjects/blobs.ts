import { join } from "node:path";
import type { Step, Subject } from "../subject.ts";
import { clientCommand } from "./client.ts";
import { daemonAddress, daemonCommand, type TvixStore } from "./tvix-store.ts";

/** How many blobs of 15 KB are sent, and how many at a time. */
const SMALL_BLOBS = { size: 15_000, count: 10_000, atATime: 16 };

/**
 * Puts blobs to a daemon, and reads them back: one large one, and many small ones.
 *
 * @param source the file that the bytes are taken of
 */
export function blobs(program: TvixStore, source: string): Subject {
  const step = (name: string, operation: string, ...numbers: number[]): Step => ({
    name,
    reportsWork: true,
    command: ({ folder, socket }) => {
      const digests = join(folder, `${numbers.join("-")}.digests`);
      const args = [daemonAddress(socket), digests, source, ...numbers.map(String)];
      return clientCommand("blobs", operation, ...args);
    },
  });
  const large = [256_000_000, 1, 1];
  const { size, count, atATime } = SMALL_BLOBS;
  return {
    name: `${program.name} daemon`,
    needs: [program.argv[0]!],
    profiled: program.profiled,
    daemon: (place) => daemonCommand(program, place),
    steps: [
      step("Put one of 256 MB", "put", ...large),
      step("Read one of 256 MB", "read", ...large),
      step("Put 15 KB", "put", size, count, atATime),
      step("Read 15 KB", "read", size, count, atATime),
    ],
  };
}
