import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../measure.ts";
import type { Command, Place, Subject } from "../subject.ts";
import { filesOf, type Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import { cacheDaemonCommand } from "./tvix-store.ts";

/** Where the daemon and the sink listen, beside their sockets: Nix pushes over TCP. */
const PORT = 18_578;

/** Name of the subject that takes no time of its own. */
export const NIX_ALONE = "nix copy, to a sink";

/** Name of the subject that stores the pushes. */
export const NIX_PUSH = "nix copy, to the daemon";

/** Store paths that are pushed together. */
export interface PushedPaths {
  /** The files of this tree are store paths, each by itself. */
  readonly tree: Tree;
  /** How Nix compresses NARs. `xz` is what it does unless told. */
  readonly compression: "xz" | "zstd" | "none";
}

/** Pushes the files of a tree by `nix copy` to a daemon of ours. */
export function nixPush(paths: PushedPaths): Subject {
  return push(NIX_PUSH, paths, (place) => cacheDaemonCommand(place, PORT));
}

/** Pushes the same to a server that looks at nothing. */
export function nixAlone(paths: PushedPaths): Subject {
  return push(NIX_ALONE, paths, ({ socket }) => clientCommand("upload-sink", `${PORT}`, socket));
}

/** Names the step of a push. */
function pushStep({ tree, compression }: PushedPaths): string {
  return `${tree.name}, ${compression}`;
}

function push(name: string, paths: PushedPaths, daemon: (place: Place) => Command): Subject {
  const { tree, compression } = paths;
  const nix = ({ folder }: Place) => ["with-nix-root", join(folder, "nix")];
  const list = ({ folder }: Place) => join(folder, "paths");
  const url = `http://127.0.0.1:${PORT}?compression=${compression}`;
  return {
    name,
    needs: ["with-nix-root", "xargs"],
    prepare: async (place) => {
      await mkdir(join(place.folder, "nix"), { recursive: true });
      await runCommand({ argv: [...nix(place), "nix-store", "--init"] });
      const files = await Array.fromAsync(filesOf(tree.path));
      await writeFile(list(place), files.join("\n"));
      const add = [...inOneCommand(place), ...nix(place), "nix-store", "--add"];
      await writeFile(list(place), await runCommand({ argv: add }));
    },
    daemon,
    steps: [
      {
        name: pushStep(paths),
        tree,
        command: (place) => ({
          argv: [
            ...inOneCommand(place),
            ...[...nix(place), "nix", "--extra-experimental-features", "nix-command"],
            ...["copy", "--to", url],
          ],
        }),
      },
    ],
  };

  /** Runs a command once, with all lines of the list as its last arguments. */
  function inOneCommand(place: Place): string[] {
    return [
      "xargs",
      "--exit",
      "--max-chars=1000000",
      "--delimiter=\\n",
      `--arg-file=${list(place)}`,
    ];
  }
}
