import { runCommand } from "../measure.ts";
import type { Command, Place, Subject } from "../subject.ts";
import { type ImportTrees, importSteps } from "./import-steps.ts";

/** Backs up to a local repository. */
export function restic(trees: ImportTrees): Subject {
  return {
    name: "restic backup",
    needs: ["restic"],
    prepare: async (place) => {
      await runCommand(command(place, "init", "--repository-version", "2"));
    },
    steps: importSteps(trees, (place, tree) => command(place, "backup", tree)),
  };
}

function command({ folder }: Place, ...args: string[]): Command {
  return {
    argv: ["restic", "--repo", folder, "--no-cache", "--quiet", ...args],
    env: { RESTIC_PASSWORD: "bench" },
  };
}
