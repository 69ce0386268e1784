import { runCommand } from "../measure.ts";
import type { Command, Place, Subject } from "../subject.ts";
import { type ImportTrees, importSteps } from "./import-steps.ts";

/** Adds to a Nix store of its own, without a daemon. */
export function nixStore(trees: ImportTrees): Subject {
  return {
    name: "nix-store --add",
    needs: ["nix-store", "with-nix-root"],
    prepare: async (place) => {
      await runCommand(command(place, "--init"));
    },
    steps: importSteps(trees, (place, tree) => command(place, "--add", tree)),
  };
}

function command({ folder }: Place, ...args: string[]): Command {
  return { argv: ["with-nix-root", folder, "nix-store", ...args] };
}
