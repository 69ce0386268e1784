import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../measure.ts";
import type { Place, Subject } from "../subject.ts";
import { clientCommand } from "./client.ts";
import type { ImportTrees } from "./import-steps.ts";
import { cacheDaemonCommand, ours } from "./tvix-store.ts";

/** Where the daemon listens, beside its socket: the link is one of TCP. */
const PORT = 18_575;

/** The local Nix of a run, which has both trees. */
const nixFolder = ({ folder }: Place) => join(folder, "nix");

const NEEDS = ["nix-store", "with-nix-root", "run-toxiproxy"];

/** Pushes store paths of a local Nix to a daemon over a slow link, chunk by chunk. */
export function pushByCopy(trees: Required<ImportTrees>): Subject {
  return push("tvix-store copy, over a link", trees, (place) => [
    ...ours.argv,
    "copy",
    `--from=local?real=${nixFolder(place)}/store&state=${nixFolder(place)}/var/nix`,
    "--to=grpc+http://127.0.0.1:{link}",
  ]);
}

/** Pushes the same as NARs. */
export function pushByNix(trees: Required<ImportTrees>): Subject {
  const to = "http://127.0.0.1:{link}?compression=zstd";
  return push("nix copy, zstd, over a link", trees, (place) => [
    ...["with-nix-root", nixFolder(place), "nix"],
    ...["--extra-experimental-features", "nix-command", "copy", "--to", to],
  ]);
}

/** @param command makes the command, which is given a store path */
function push(
  name: string,
  { tree, changed }: Required<ImportTrees>,
  command: (place: Place) => readonly string[],
): Subject {
  const step = (name: string, tree: { readonly name: string }) => ({
    name,
    reportsWork: true,
    command: (place: Place) =>
      clientCommand("over-link", `${PORT}`, ...command(place), `{${pathFile(place, tree)}}`),
  });
  return {
    name,
    needs: NEEDS,
    prepare: async (place) => {
      const nix = ["with-nix-root", nixFolder(place), "nix-store"];
      await runCommand({ argv: [...nix, "--init"] });
      for (const one of [tree, changed]) {
        const path = await runCommand({ argv: [...nix, "--add", one.path] });
        await writeFile(pathFile(place, one), path);
      }
    },
    daemon: (place) => cacheDaemonCommand(place, PORT),
    steps: [step("first", tree), step("10 % changed", changed)],
  };
}

function pathFile({ folder }: Place, { name }: { readonly name: string }): string {
  return join(folder, `path of ${name}`);
}
