/** Builds the command before tests run that start it. */
import { execFileSync } from "node:child_process";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../packages/cli/scripts/build.ts", import.meta.url));

/** Other packages than the command's have no tests that start it. */
const OTHERS = ["proto", "castore", "store", "nar-bridge", "conformance", "bench"];

export function setup(): void {
  if (OTHERS.includes(basename(process.cwd()))) return;
  execFileSync(process.execPath, [PROGRAM], { stdio: "inherit" });
}
