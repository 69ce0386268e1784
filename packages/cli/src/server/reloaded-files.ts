import type { Logger } from "pino";
import { watchFiles } from "./watch-files.ts";

/** Options of {@link ReloadedFiles}. */
export interface ReloadedFilesOptions {
  /** What the files are, in messages, such as "auth file". */
  what: string;
  paths: readonly string[];
  /** Reads the files and puts them to use. If it throws, what was in use stays. */
  load: () => Promise<void>;
  logger: Logger;
}

/** Reads files again when they change, and on demand. What cannot be used is logged and changes nothing. */
export class ReloadedFiles implements Disposable {
  readonly #options: ReloadedFilesOptions;
  readonly #watch: Disposable;
  #last: Promise<void> = Promise.resolve();

  constructor(options: ReloadedFilesOptions) {
    this.#options = options;
    this.#watch = watchFiles(options.paths, () => void this.reload());
  }

  /** Reads the files again, after any other reading. Never rejects. */
  reload(): Promise<void> {
    this.#last = this.#last.then(() => this.#load());
    return this.#last;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
  }

  async #load(): Promise<void> {
    const { what, load, logger } = this.#options;
    try {
      await load();
      logger.info(`${what} read again`);
    } catch (err) {
      logger.error({ err }, `cannot read the ${what} again: what was in it before stays in use`);
    }
  }
}
