import { readFile } from "node:fs/promises";
import { CastoreError } from "../model/errors.ts";
import { systemReason } from "../model/system-error.ts";

/** Age at which a token is read again from its file, in milliseconds. */
const FRESH_MS = 1_000;

/** The longest token that is read, in characters. */
const MAX_LENGTH = 8 * 1024;

/** What a header can carry: RFC 6750, section 2.1. */
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/;

/** Reads an access token from a file, which may be replaced at any time. */
export class TokenFile {
  readonly #path: string;
  #header: Promise<string> | undefined;
  #readMs = 0;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Returns the header `authorization` for the token that the file has now, or had a second ago.
   *
   * @throws CastoreError `permission_denied` for a file that cannot be read, or has no token
   */
  authorization(): Promise<string> {
    const nowMs = performance.now();
    if (this.#header === undefined || nowMs - this.#readMs > FRESH_MS) {
      this.#readMs = nowMs;
      this.#header = this.#read();
    }
    return this.#header;
  }

  async #read(): Promise<string> {
    let text: string;
    try {
      text = (await readFile(this.#path, "utf8")).trim();
    } catch (error) {
      throw this.#refusal(systemReason(error as NodeJS.ErrnoException), error);
    }
    if (text.length <= MAX_LENGTH && TOKEN.test(text)) return `Bearer ${text}`;
    throw this.#refusal("expected a token in one line, found something else");
  }

  #refusal(reason: string, cause?: unknown): CastoreError {
    const message = `Cannot use token file "${this.#path}": ${reason}`;
    return new CastoreError("permission_denied", message, { cause });
  }
}
