import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Command, Place, Subject } from "../subject.ts";
import { type ImportTrees, importSteps } from "./import-steps.ts";

/** A program with the command line of `tvix-store`, and the stores that it has. */
export interface TvixStore {
  readonly name: string;
  readonly argv: readonly string[];
  /** Whether it is a Node program. */
  readonly profiled: boolean;
  /** Addresses of stores in a folder: of blobs, directories and path infos. */
  addresses(folder: string): readonly [blobs: string, directories: string, pathInfos: string];
}

/** The one of this repository, as its package says that it is started. */
export const ours: TvixStore = {
  name: "tvix-store",
  argv: [commandFile()],
  profiled: true,
  addresses: (folder) => [
    `pack://${encodeURI(folder)}/blobs`,
    `sqlite://${encodeURI(folder)}/directories.sqlite`,
    `sqlite://${encodeURI(folder)}/path-infos.sqlite`,
  ],
};

/** The same with stores in memory: what a call costs where nothing is compressed or waited for. */
export const oursInMemory: TvixStore = {
  ...ours,
  name: "tvix-store in memory,",
  profiled: false, // a daemon is started anew to be profiled, and has forgotten everything
  addresses: () => ["memory://", "memory://", "memory://"],
};

/** Another implementation, of which `PEER_TVIX_STORE` is the path. */
export const peer: TvixStore = {
  name: "peer tvix-store",
  argv: [process.env.PEER_TVIX_STORE || "PEER_TVIX_STORE"],
  profiled: false,
  addresses: (folder) => [
    `objectstore+file://${encodeURI(folder)}`,
    `redb://${encodeURI(folder)}/directories.redb`,
    `redb://${encodeURI(folder)}/path-infos.redb`,
  ],
};

/** Imports into stores in the folder, without a daemon. */
export function directImport(program: TvixStore, trees: ImportTrees): Subject {
  return {
    name: `${program.name} import, direct`,
    needs: [program.argv[0]!],
    profiled: program.profiled,
    steps: importSteps(trees, ({ folder }, tree) =>
      importCommand(program, program.addresses(folder), tree),
    ),
  };
}

/** Imports through a daemon, whose stores are in the folder. */
export function daemonImport(program: TvixStore, trees: ImportTrees): Subject {
  return {
    name: `${program.name} import, daemon`,
    needs: [program.argv[0]!],
    profiled: program.profiled,
    daemon: (place) => daemonCommand(program, place),
    steps: importSteps(trees, ({ socket }, tree) => {
      const address = daemonAddress(socket);
      return importCommand(program, [address, address, address], tree);
    }),
  };
}

/** Starts a daemon, whose stores are in the folder. */
export function daemonCommand(program: TvixStore, { folder, socket }: Place): Command {
  const addresses = addressFlags(program.addresses(folder));
  return { argv: [...program.argv, "daemon", "-l", socket, ...addresses] };
}

/** Starts a daemon of ours that listens on a port as well, where it is a binary cache, and keeps all of it in the folder. */
export function cacheDaemonCommand(place: Place, port: number): Command {
  const { argv, ...command } = daemonCommand(ours, place);
  const objects = `sqlite://${encodeURI(place.folder)}/http-cache`;
  return {
    ...command,
    argv: [...argv, "-l", `127.0.0.1:${port}`, "--cache-object-addr", objects],
  };
}

/** Where clients find a daemon. */
export function daemonAddress(socket: string): string {
  return `grpc+unix://${encodeURI(socket)}`;
}

/** Imports a tree. */
export function importCommand(
  program: TvixStore,
  addresses: readonly string[],
  tree: string,
): Command {
  return { argv: [...program.argv, "import", ...addressFlags(addresses), tree] };
}

/** The command line that mounts stores, without the folder at its end. */
export function mountArguments(program: TvixStore, addresses: readonly string[]): string[] {
  return [...program.argv, "mount", "--list-root", ...addressFlags(addresses)];
}

/** The flags that name stores: of blobs, directories and path infos. */
export function addressFlags(addresses: readonly string[]): string[] {
  const names = ["blob", "directory", "path-info"];
  return names.flatMap((name, i) => [`--${name}-service-addr`, addresses[i]!]);
}

function commandFile(): string {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve("@tvix/cli/package.json");
  return join(dirname(manifest), require(manifest).bin["tvix-store"]);
}
