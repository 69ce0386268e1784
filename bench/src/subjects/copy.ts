import { join } from "node:path";
import type { Subject } from "../subject.ts";
import type { ImportTrees } from "./import-steps.ts";

/** Copies, and keeps nothing apart: what the file system alone takes. */
export function copy({ tree }: ImportTrees): Subject {
  return {
    name: "cp -a",
    needs: ["cp"],
    steps: [
      {
        name: "first",
        tree,
        command: ({ folder }) => ({ argv: ["cp", "-a", tree.path, join(folder, "copy")] }),
      },
    ],
  };
}
