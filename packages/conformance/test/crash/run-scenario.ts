// Opens a store, puts everything of its scenario into it, and writes a line, "done", to stdout after each step. Arguments: the name of the scenario, the folder.
import { writeSync } from "node:fs";
import { SCENARIOS } from "./scenarios.ts";

const [name, folder] = process.argv.slice(2);
await using store = await SCENARIOS[name!]!(folder!);
for (const step of store.steps) {
  await step.put();
  writeSync(1, "done\n");
}
