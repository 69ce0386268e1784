import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";

/** Timeout after which a test fails and shows the screen, in milliseconds. */
const PATIENCE_MS = 20_000;

/** Control sequences that move the cursor, such as index and reverse index. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it matches control characters
const SINGLE_ESCAPES = /\x1b[78=>DEM]/g;

/**
 * A program in a terminal of its own, made by `script` of util-linux. Input is sent in step with what
 * the program shows, never by the clock. Disposing ends the program.
 */
export class Terminal implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #exited: Promise<unknown>;
  #output = "";
  /** Position in the output after the last match. */
  #mark = 0;

  /** @param command for the shell */
  constructor(script: string, command: string, env: NodeJS.ProcessEnv) {
    // A terminal without a size makes line editors divide by zero.
    const sized = `stty rows 50 cols 200 && exec ${command}`;
    this.#child = spawn(script, ["--quiet", "--flush", "--command", sized, "/dev/null"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...env, TERM: "xterm", SHELL: "/bin/sh" },
    });
    this.#exited = once(this.#child, "exit");
    this.#child.stdin.on("error", () => undefined);
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.#output += text;
    });
  }

  /** Waits until the output since the last command ends with `prompt` on a line of its own. */
  async prompt(prompt: string): Promise<string> {
    return this.#until((text) => text.endsWith(`\r\n${prompt}`), `the prompt "${prompt}"`);
  }

  /**
   * Types a line. Enter is sent apart, once the text is shown: line editors take what arrives in one
   * piece for pasted text.
   */
  async enter(line: string): Promise<void> {
    this.#mark = this.#output.length;
    this.#child.stdin.write(line);
    await this.#until((text) => text.includes(line), `the line "${line}"`);
    this.press("\r");
  }

  /** Presses a key. */
  press(key: string): void {
    this.#mark = this.#output.length;
    this.#child.stdin.write(key);
  }

  async #until(condition: (text: string) => boolean, expected: string): Promise<string> {
    const deadline = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const text = plain(this.#output.slice(this.#mark));
      if (condition(text)) return text;
      try {
        await once(this.#child.stdout, "data", { signal: deadline });
      } catch {
        throw new Error(`Expected the terminal to show ${expected}, found ${JSON.stringify(text)}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL"); // the program gets SIGHUP
    await this.#exited;
  }
}

/** Returns the text as displayed. */
function plain(output: string): string {
  return stripVTControlCharacters(output).replace(SINGLE_ESCAPES, "");
}
