import { basename, dirname, join } from "node:path";
import { runCommand } from "../measure.ts";
import type { Place, Step, Subject } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import {
  daemonAddress,
  daemonCommand,
  importCommand,
  mountArguments,
  type TvixStore,
} from "./tvix-store.ts";

/** Mounts stores in the folder, and reads the tree out of the file system by `tar`. */
export function mountDirect(program: TvixStore, tree: Tree): Subject {
  return {
    ...mountSubject(program, "direct", tree),
    steps: [readStep(program, ({ folder }) => program.addresses(folder))],
  };
}

/** Mounts what a daemon has, and reads the tree out of the file system by `tar`. */
export function mountOfDaemon(program: TvixStore, tree: Tree): Subject {
  return {
    ...mountSubject(program, "daemon", tree),
    daemon: (place) => daemonCommand(program, place),
    steps: [readStep(program, ({ socket }) => Array(3).fill(daemonAddress(socket)))],
  };
}

/** Reads the tree itself by `tar`, out of the page cache. */
export function tarOfSource(tree: Tree): Subject {
  const argv = ["sh", "-c", 'tar -C "$1" -cf - "$2" | wc -c', "sh"];
  return {
    name: "tar of the source",
    needs: ["tar"],
    steps: [
      {
        name: "read all",
        tree,
        command: () => ({ argv: [...argv, dirname(tree.path), basename(tree.path)] }),
      },
    ],
  };
}

function mountSubject(program: TvixStore, how: string, { path }: Tree) {
  return {
    name: `${program.name} mount, ${how}`,
    needs: [program.argv[0]!, "mount", "umount", "tar"],
    profiled: program.profiled,
    keepsFolder: true,
    prepare: async ({ folder }: Place) => {
      await runCommand(importCommand(program, program.addresses(folder), path));
    },
  } satisfies Partial<Subject>;
}

function readStep(program: TvixStore, addresses: (place: Place) => readonly string[]): Step {
  return {
    name: "read all",
    reportsWork: true,
    command: (place) => {
      const mounting = mountArguments(program, addresses(place));
      // Beside the folder, whose size on disk is measured.
      return clientCommand("read-mount", join(dirname(place.socket), "mount"), ...mounting);
    },
  };
}
