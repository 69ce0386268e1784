import { CastoreError } from "@tvix/castore";
import { Interrupt, Interrupted } from "./interrupt.ts";

/**
 * Runs the body of a command. What it throws becomes one line on stderr and the exit status; only
 * what nobody expected shows where it came from.
 */
export async function run(body: (interrupt: Interrupt) => Promise<void>): Promise<void> {
  using interrupt = new Interrupt();
  try {
    await body(interrupt);
  } catch (error) {
    process.exitCode = error instanceof Interrupted ? error.exitStatus : 1;
    process.stderr.write(`tvix-store: ${describe(error)}\n`);
  }
}

function describe(error: unknown): string {
  if (error instanceof CastoreError || error instanceof Interrupted) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
