import { spawn } from "node:child_process";
import { once } from "node:events";
import { buffer, text } from "node:stream/consumers";
import { MAIN } from "./harness.ts";

/** How a run of the command ended. */
export interface BytesOutcome {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs `tvix-store` with arguments that need not be UTF-8, and returns what it wrote as bytes. */
export async function runBytes(
  args: readonly (string | Buffer)[],
  { cwd }: { cwd?: string } = {},
): Promise<BytesOutcome> {
  // Node passes arguments as UTF-8 only: a shell makes them of escapes.
  const words = args.map(
    (word) => `$'${Buffer.from(word).toString("hex").replace(/../g, "\\x$&")}'`,
  );
  const script = `exec "$0" "$@" ${words.join(" ")}`;
  const child = spawn("bash", ["-c", script, process.execPath, MAIN], {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, [status]] = await Promise.all([
    buffer(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { status, stdout, stderr };
}
