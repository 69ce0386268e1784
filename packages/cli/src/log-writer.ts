import { closeSync, constants, openSync, write, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isatty } from "node:tty";

/** Characters of log lines that wait to be written; lines beyond are lost. */
const MAX_PENDING = 1024 * 1024;

/** How long a pipe or terminal that is full is left alone before it is tried again. */
const RETRY_MS = 100;

/** How long the end of the process may wait for the last lines. */
const FLUSH_MS = 1000;

/**
 * Writes log lines on stderr without ever holding anybody up. Lines are written together, away from the event loop.
 * Where stderr takes no more, because the disk is full or nobody reads the pipe, up to a megabyte of lines waits and the
 * others are lost; once stderr takes lines again, `onLoss` is told how many were.
 */
export class LogWriter implements AsyncDisposable {
  readonly #fd: number;
  readonly #onLoss: (lines: number) => void;
  #pending: string[] = [];
  #pendingLength = 0;
  #lost = 0;
  /** Whether stderr ends in the middle of a line. */
  #isCut = false;
  #writing: Promise<void> | undefined;

  constructor(onLoss: (lines: number) => void) {
    this.#fd = openStderr();
    this.#onLoss = onLoss;
    process.once("exit", this.#onExit);
  }

  /** Takes a line, with the line feed at its end. */
  write(line: string): void {
    if (this.#pendingLength + line.length > MAX_PENDING) {
      this.#lost += 1;
      return;
    }
    this.#pending.push(line);
    this.#pendingLength += line.length;
    this.#writing ??= this.#writePending();
  }

  /** Writes the lines that wait, as far as stderr takes them within a second. */
  async [Symbol.asyncDispose](): Promise<void> {
    const deadline = new AbortController();
    const timeout = sleep(FLUSH_MS, undefined, deadline).catch(() => undefined);
    await Promise.race([this.#writing, timeout]);
    deadline.abort();
    process.off("exit", this.#onExit);
    if (this.#fd !== 2 && this.#writing === undefined) closeSync(this.#fd);
  }

  async #writePending(): Promise<void> {
    await undefined; // so that lines of the same moment are written together
    while (this.#pending.length > 0) {
      const lines = this.#take();
      const bytes = Buffer.from((this.#isCut ? "\n" : "") + lines.join(""));
      const written = await this.#writeBytes(bytes);
      if (written === bytes.length) {
        this.#isCut = false;
        this.#tellLoss();
      } else {
        const done = bytes.subarray(0, written);
        const whole =
          done.filter((byte) => byte === LINE_FEED).length - (this.#isCut && written > 0 ? 1 : 0);
        this.#lost += lines.length - whole;
        if (written > 0) this.#isCut = done.at(-1) !== LINE_FEED;
      }
    }
    this.#writing = undefined;
  }

  /** Writes bytes, and resolves with how many were written before an error. */
  async #writeBytes(bytes: Buffer): Promise<number> {
    for (let at = 0; ; ) {
      const { error, written } = await new Promise<{
        error: NodeJS.ErrnoException | null;
        written: number;
      }>((resolve) => write(this.#fd, bytes, at, (error, written) => resolve({ error, written })));
      if (error?.code === "EAGAIN") await sleep(RETRY_MS, undefined, { ref: false });
      else if (error) return at;
      else at += written;
      if (at === bytes.length) return at;
    }
  }

  #take(): string[] {
    const lines = this.#pending;
    this.#pending = [];
    this.#pendingLength = 0;
    return lines;
  }

  #tellLoss(): void {
    if (this.#lost === 0) return;
    const lost = this.#lost;
    this.#lost = 0;
    this.#onLoss(lost);
  }

  /** Writes the lines that wait when the process ends without disposing, as after an error that nobody expected. */
  readonly #onExit = (): void => {
    try {
      writeSync(this.#fd, this.#take().join(""));
    } catch {} // as little as in any other case
  };
}

const LINE_FEED = 0x0a;

/** Opens stderr so that writing never blocks. */
function openStderr(): number {
  if (!isatty(2)) {
    void process.stderr; // sets a pipe or a socket to non-blocking; a file never blocks for long
    return 2;
  }
  try {
    // A terminal that is stopped blocks. Opened anew, as the mode would be that of all programs on this terminal.
    return openSync("/dev/stderr", constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK);
  } catch {
    return 2;
  }
}
