import { closeSync, constants, openSync, write, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isatty } from "node:tty";

/** Limit of waiting log lines, in characters. Further lines are dropped. */
const MAX_PENDING = 1024 * 1024;

/** Time before a full pipe or terminal is tried again. */
const RETRY_MS = 100;

/** Time limit for writing the last lines at the end of the process. */
const FLUSH_MS = 1000;

/**
 * Writes log lines on stderr and never blocks or fails its caller. Lines are written in batches, off the event loop.
 * While stderr takes no more (a full disk, a pipe that nobody reads), up to a megabyte of lines waits and further lines are
 * dropped. Once stderr takes lines again, `onLoss` is called with the number of dropped lines.
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

  /** Queues a line, which ends with a line feed, or drops it. */
  write(line: string): void {
    if (this.#pendingLength + line.length > MAX_PENDING) {
      this.#lost += 1;
      return;
    }
    this.#pending.push(line);
    this.#pendingLength += line.length;
    this.#writing ??= this.#writePending();
  }

  /** Writes the waiting lines, as far as stderr takes them within a second. */
  async [Symbol.asyncDispose](): Promise<void> {
    const deadline = new AbortController();
    const timeout = sleep(FLUSH_MS, undefined, deadline).catch(() => undefined);
    await Promise.race([this.#writing, timeout]);
    deadline.abort();
    process.off("exit", this.#onExit);
    if (this.#fd !== 2 && this.#writing === undefined) closeSync(this.#fd);
  }

  async #writePending(): Promise<void> {
    await undefined; // batches the lines of this turn
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

  /** Writes bytes; resolves with the number of bytes written before an error. */
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

  /** Writes the waiting lines when the process exits without disposing, as after an uncaught error. */
  readonly #onExit = (): void => {
    try {
      writeSync(this.#fd, this.#take().join(""));
    } catch {} // dropped, as in any other case
  };
}

const LINE_FEED = 0x0a;

/** Returns a file descriptor of stderr on which writing does not block. */
function openStderr(): number {
  if (!isatty(2)) {
    void process.stderr; // makes a pipe or a socket non-blocking; files do not block for long
    return 2;
  }
  try {
    // Opened anew, since O_NONBLOCK on the inherited descriptor would affect all programs on this terminal.
    return openSync("/dev/stderr", constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK);
  } catch {
    return 2;
  }
}
