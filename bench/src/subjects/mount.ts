import { basename, dirname, join } from "node:path";
import { runCommand } from "../measure.ts";
import type { Place, ReadKind, Step, Subject } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import {
  daemonAddress,
  daemonCommand,
  importCommand,
  mountArguments,
  type TvixStore,
} from "./tvix-store.ts";

/** A way to read a tree, which is a row. */
export interface MountRead {
  readonly name: string;
  readonly kind: ReadKind;
  readonly tree: Tree;
}

/** Mounts stores in the folder, and reads trees out of the file system, each by a mount of its own. */
export function mountDirect(program: TvixStore, reads: readonly MountRead[]): Subject {
  return mountSubject(program, "direct", reads, ({ folder }) => program.addresses(folder));
}

/** Mounts what a daemon has, and reads trees as {@link mountDirect} does. */
export function mountOfDaemon(program: TvixStore, reads: readonly MountRead[]): Subject {
  return {
    ...mountSubject(program, "daemon", reads, ({ socket }) => Array(3).fill(daemonAddress(socket))),
    daemon: (place) => daemonCommand(program, place),
  };
}

/** Reads the trees themselves, from the disk. */
export function filesOnDisk(reads: readonly MountRead[]): Subject {
  return {
    name: "files on disk",
    needs: ["tar", "find", "dd"],
    steps: reads.map(({ name, kind, tree }) => ({
      name,
      reportsWork: true,
      command: () => clientCommand("read-disk", kind, tree.path),
    })),
  };
}

function mountSubject(
  program: TvixStore,
  how: string,
  reads: readonly MountRead[],
  addresses: (place: Place) => readonly string[],
): Subject {
  const trees = new Set(reads.map(({ tree }) => tree.path));
  return {
    name: `${program.name} mount, ${how}`,
    needs: [program.argv[0]!, "mount", "umount", "tar", "find", "dd"],
    profiled: program.profiled,
    keepsFolder: true,
    prepare: async ({ folder }) => {
      for (const tree of trees) {
        await runCommand(importCommand(program, program.addresses(folder), tree));
      }
    },
    steps: reads.map(({ name, kind, tree }): Step => {
      return {
        name,
        reportsWork: true,
        command: (place) => {
          const mounting = mountArguments(program, addresses(place));
          // Beside the folder, whose size on disk is measured.
          const mountPoint = join(dirname(place.socket), "mount");
          return clientCommand("read-mount", kind, basename(tree.path), mountPoint, ...mounting);
        },
      };
    }),
  };
}
