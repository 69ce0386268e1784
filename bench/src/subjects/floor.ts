import type { Subject } from "../subject.ts";
import { clientCommand } from "./client.ts";
import type { ImportTrees } from "./import-steps.ts";

/** Name of the subject that the efficiency of imports is computed from. */
export const FLOOR = "primitives, one thread";

/** The primitives that an import cannot do without, and nothing else. */
export function floor({ tree }: ImportTrees): Subject {
  return {
    name: FLOOR,
    needs: [],
    steps: [
      { name: "first", tree, reportsWork: true, command: () => clientCommand("floor", tree.path) },
    ],
  };
}
