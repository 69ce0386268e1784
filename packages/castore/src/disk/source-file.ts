import {
  closeSync,
  constants,
  fstatSync,
  open as openCallback,
  openSync,
  read as readCallback,
  readSync,
  type Stats,
} from "node:fs";
import { promisify } from "node:util";
import { CastoreError } from "../model/errors.ts";
import type { EntryState } from "./entry-state.ts";
import { fileError, showFilePath } from "./file-error.ts";

const open = promisify(openCallback);
const read = promisify(readCallback);

// Opening fails at a symlink, and does not wait for the writer of a fifo: a path that is either was replaced after its
// folder was listed.
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Bytes per read of a file that is not read whole. */
const READ_SIZE = 1024 * 1024;

/**
 * A regular file that is being read. Reading fails if the file changes meanwhile, so that what is imported is a state
 * that the file had.
 */
export class SourceFile implements Disposable {
  readonly size: number;
  readonly executable: boolean;
  /** The open file. Any thread may read from it until this is disposed of. */
  readonly fd: number;
  /** What the file was when it was opened. */
  readonly state: EntryState;
  readonly #path: Buffer;

  private constructor(path: Buffer, fd: number, state: EntryState) {
    this.#path = path;
    this.fd = fd;
    this.state = state;
    this.size = state.size;
    this.executable = (state.mode & constants.S_IXUSR) !== 0;
  }

  /**
   * Opens a file.
   *
   * @throws CastoreError `aborted` if it is no regular file (any more); others by cause, such as `permission_denied`
   */
  static async open(path: Buffer): Promise<SourceFile> {
    try {
      return SourceFile.#of(path, await open(path, FLAGS));
    } catch (error) {
      throw fileError(error, path, "read");
    }
  }

  /** Opens a file as {@link SourceFile.open} does, and blocks the thread. */
  static openSync(path: Buffer): SourceFile {
    try {
      return SourceFile.#of(path, openSync(path, FLAGS));
    } catch (error) {
      throw fileError(error, path, "read");
    }
  }

  static #of(path: Buffer, fd: number): SourceFile {
    try {
      const stat = statOf(fd);
      if (!stat.isFile()) throw changed(path);
      return new SourceFile(path, fd, stat);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Reads the contents in pieces that are lent until the next one is asked for, one piece ahead. May be called again
   * after it has ended.
   *
   * @throws CastoreError `aborted` if the file changes before all of it is read
   */
  async *read(): AsyncGenerator<Uint8Array> {
    // One byte more than expected: it shows that a file grew without another read.
    const length = Math.min(READ_SIZE, this.size + 1);
    let [buffer, other] = [Buffer.allocUnsafeSlow(length), Buffer.allocUnsafeSlow(length)];
    let position = 0;
    let next = this.#fill(buffer, position);
    try {
      for (let ended = false; !ended; ) {
        const piece = buffer.subarray(0, await next);
        position += piece.length;
        ended = piece.length < length || position > this.size;
        [buffer, other] = [other, buffer];
        if (!ended) next = this.#fill(buffer, position);
        if (piece.length > 0 && position <= this.size) yield piece;
      }
      this.expectUnchanged(position);
    } catch (error) {
      throw fileError(error, this.#path, "read");
    } finally {
      await next.catch(() => undefined); // thrown above, or of no interest any more
    }
  }

  /**
   * Reads the whole file, and blocks the thread.
   *
   * @param target as long as the file
   * @throws CastoreError `aborted` if the file changes before all of it is read
   */
  readSync(target: Uint8Array): void {
    try {
      // Files that the kernel makes up say that they are empty.
      const read = fillSync(this.fd, this.size > 0 ? target : new Uint8Array(1), 0);
      this.expectUnchanged(read);
    } catch (error) {
      throw fileError(error, this.#path, "read");
    }
  }

  /**
   * Checks that the file is as it was when it was opened.
   *
   * @param bytesRead how many bytes of it were read, to its end
   * @throws CastoreError `aborted` if it has changed, or had another length
   */
  expectUnchanged(bytesRead: number): void {
    if (bytesRead !== this.size || !isSameVersion(statOf(this.fd), this.state)) {
      throw changed(this.#path);
    }
  }

  /** Returns the CastoreError, by cause, for an error of reading the file. */
  readError(error: unknown): unknown {
    return fileError(error, this.#path, "read");
  }

  /** Reads from a position on until the buffer is full or the file ends. Returns how many bytes it read. */
  async #fill(buffer: Buffer, position: number): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      const rest = buffer.length - filled;
      const { bytesRead } = await read(this.fd, buffer, filled, rest, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** Reads from a position on until the buffer is full or the file ends, and blocks. Returns how many bytes it read. */
export function fillSync(fd: number, target: Uint8Array, position: number): number {
  let filled = 0;
  while (filled < target.length) {
    const bytesRead = readSync(fd, target, filled, target.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

/** Blocks, but only shortly: the file is open. */
function statOf(fd: number): Stats {
  return fstatSync(fd);
}

/** Tells whether a file was neither written to nor replaced in between. Times are exact to a quarter of a microsecond. */
function isSameVersion(a: EntryState, b: EntryState): boolean {
  const isUnwritten = a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs;
  return isUnwritten && a.size === b.size && a.mode === b.mode;
}

function changed(path: Buffer): CastoreError {
  return new CastoreError(
    "aborted",
    `Cannot import ${showFilePath(path)}: it changed while it was read`,
  );
}
