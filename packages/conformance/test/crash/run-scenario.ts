// Opens a store, puts everything of its scenario into it, and writes the number of each step that is done to stdout, a
// line each. Arguments: the name of the scenario, the folder.
import { writeSync } from "node:fs";
import { SCENARIOS } from "./scenarios.ts";

const [name, folder] = process.argv.slice(2);
await using store = await SCENARIOS[name!]!(folder!);
for (const [i, step] of store.steps.entries()) {
  await step.put();
  writeSync(1, `${i}\n`);
}
