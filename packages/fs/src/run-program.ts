import { type ChildProcess, spawn } from "node:child_process";

/** How a program ended. */
export interface Ended {
  /** Exit status; `null` after a signal. */
  readonly status: number | null;
  readonly stderr: string;
}

/** A program that runs. */
export interface Running {
  readonly child: ChildProcess;
  /** Rejects if the program cannot be started. */
  readonly ended: Promise<Ended>;
}

/**
 * Starts a program.
 *
 * @param stdin is its input, made blocking. Default: none
 * @param fd is its descriptor 3
 */
export function startProgram(
  program: string,
  args: readonly string[],
  { stdin, fd, env }: { stdin?: number; fd?: number; env?: NodeJS.ProcessEnv } = {},
): Running {
  const inherited = fd === undefined ? [] : [fd];
  const child = spawn(program, args, {
    stdio: [stdin ?? "ignore", "ignore", "pipe", ...inherited],
    env: { ...process.env, LC_ALL: "C", ...env },
  });
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject).once("close", (status) => resolve({ status, stderr }));
  });
  return { child, ended };
}
