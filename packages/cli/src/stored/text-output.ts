import type { AbortOptions } from "@tvix/castore";
import { writeStdout } from "../terminal/output.ts";

/** How many bytes are gathered before they are written. */
const GATHERED = 64 * 1024;

/** Gathers output into larger pieces on their way to stdout. */
export class TextOutput {
  readonly #options: AbortOptions;
  #parts: Uint8Array[] = [];
  #length = 0;

  constructor(options: AbortOptions) {
    this.#options = options;
  }

  /**
   * Adds text or bytes. Resolves once there is room for more.
   *
   * @throws OutputError if the system does not take it
   */
  async write(...parts: readonly (string | Uint8Array)[]): Promise<void> {
    for (const part of parts) {
      const bytes = typeof part === "string" ? Buffer.from(part) : part;
      this.#parts.push(bytes);
      this.#length += bytes.length;
    }
    if (this.#length >= GATHERED) await this.flush();
  }

  /** Writes what was gathered. */
  async flush(): Promise<void> {
    const bytes = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#length = 0;
    if (bytes.length > 0) await writeStdout(bytes, this.#options);
  }
}
