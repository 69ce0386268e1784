import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const SCRIPT = fileURLToPath(new URL("../../packages/cli/scripts/build.ts", import.meta.url));

/** Bundles the command, so that what is timed is what the sources say. */
export async function buildCommand(): Promise<void> {
  await promisify(execFile)(process.execPath, [SCRIPT]);
}
