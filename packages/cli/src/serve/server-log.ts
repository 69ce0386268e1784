import { isatty } from "node:tty";
import { type Logger, pino } from "pino";
import { type LogOptions, lowestLevel } from "../terminal/notices.ts";
import { LogWriter } from "./log-writer.ts";

/** The log of a server on stderr. Disposing writes the waiting lines. */
export class ServerLog implements AsyncDisposable {
  readonly logger: Logger;
  /** Whether lines are for people: none of them is JSON. */
  readonly isPretty: boolean;
  readonly #writer: LogWriter;

  private constructor(options: LogOptions, format: ((line: string) => string) | undefined) {
    this.#writer = new LogWriter((lost) =>
      this.logger.warn({ lost }, "log lines dropped: stderr took no more"),
    );
    this.isPretty = format !== undefined;
    this.logger = pino(
      { level: lowestLevel(options) },
      { write: (line) => this.#writer.write(format === undefined ? line : format(line)) },
    );
  }

  /** Opens the log in the format that the options say: by default, for people where stderr is a terminal. */
  static async open(options: LogOptions): Promise<ServerLog> {
    const { logFormat } = options;
    const isPretty = logFormat === "pretty" || (logFormat === "auto" && isatty(2));
    return new ServerLog(options, isPretty ? await loadFormat() : undefined);
  }

  /** Writes a text for people among the lines. */
  say(text: string): void {
    this.#writer.write(text);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer[Symbol.asyncDispose]();
  }
}

async function loadFormat(): Promise<(line: string) => string> {
  const { prettyFactory } = await import("pino-pretty"); // slow to load
  return prettyFactory({
    colorize: isatty(2) && process.stderr.hasColors(),
    translateTime: "SYS:HH:MM:ss",
    ignore: "pid,hostname",
  });
}
