import { join } from "node:path";
import { loadBundled, useCodeCache } from "./code-cache.ts";

useCodeCache();
const { runProgram } = loadBundled(
  join(import.meta.dirname, "program.cjs"),
) as typeof import("./program.ts");
void runProgram();
