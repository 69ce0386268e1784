import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** A process that writes until it is killed, and prints a line for each item stored. */
export class WritingProcess<Finished> {
  readonly finished: Finished[] = [];
  readonly #child: ChildProcess;

  /**
   * @param script the program
   * @param args its arguments
   * @param onFinished called with each line
   */
  constructor(script: URL, args: readonly string[], onFinished?: (what: Finished) => void) {
    this.#child = fork(fileURLToPath(script), args, {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child.on("message", (what) => {
      this.finished.push(what as Finished);
      onFinished?.(what as Finished);
    });
  }

  /** Waits until so many more are finished. */
  async finishes(count: number): Promise<void> {
    const wanted = this.finished.length + count;
    const ended = once(this.#child, "close").then(([code]) => {
      throw new Error(`expected a process that writes on, but it ended with ${code}`);
    });
    ended.catch(() => undefined); // it ends some day
    while (this.finished.length < wanted) {
      await Promise.race([once(this.#child, "message"), ended]);
    }
  }

  /** Kills it at once. */
  async kill(): Promise<void> {
    const closed = once(this.#child, "close");
    this.#child.kill("SIGKILL");
    await closed; // what it told before that has come
  }
}
