import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  open as openCallback,
  read as readCallback,
} from "node:fs";
import { promisify } from "node:util";
import { CastoreError } from "../errors.ts";
import { fileError, showFilePath } from "./file-error.ts";

const open = promisify(openCallback);
const read = promisify(readCallback);

/** Bytes per read of a file that is not read whole. */
const READ_SIZE = 1024 * 1024;

/**
 * A regular file that is being read. Reading finds out if it changes meanwhile: what is imported is
 * a state that the file had, or an error.
 */
export class SourceFile implements Disposable {
  readonly size: number;
  readonly executable: boolean;
  readonly #path: Buffer;
  readonly #fd: number;
  readonly #version: string;

  private constructor(path: Buffer, fd: number, stat: BigIntStats) {
    this.#path = path;
    this.#fd = fd;
    this.#version = versionOf(stat);
    this.size = Number(stat.size);
    this.executable = (stat.mode & BigInt(constants.S_IXUSR)) !== 0n;
  }

  /**
   * Opens a file.
   *
   * @throws CastoreError `aborted` if it is no regular file (any more), `permission_denied` and the
   *   like by cause
   */
  static async open(path: Buffer): Promise<SourceFile> {
    let fd: number | undefined;
    try {
      // Not through a symlink, and without waiting for the writer of a fifo: either would mean that
      // the path was replaced after its folder was listed.
      fd = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const stat = statOf(fd);
      if (!stat.isFile()) throw changed(path);
      return new SourceFile(path, fd, stat);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      throw fileError(error, path, "read");
    }
  }

  /**
   * The contents, in order. Each piece is a buffer of its own.
   *
   * @throws CastoreError `aborted` if the file changes before all of it is read
   */
  async *read(): AsyncGenerator<Uint8Array> {
    let position = 0;
    try {
      for (;;) {
        // One byte more than is expected, to notice a file that grew without a further read.
        const size = Math.min(READ_SIZE, this.size - position + 1);
        const buffer = Buffer.allocUnsafeSlow(size);
        const bytesRead = await this.#fill(buffer, position);
        position += bytesRead;
        if (bytesRead > 0 && position <= this.size) yield buffer.subarray(0, bytesRead);
        if (position > this.size || bytesRead < size) break;
      }
      if (position !== this.size || versionOf(statOf(this.#fd)) !== this.#version) {
        throw changed(this.#path);
      }
    } catch (error) {
      throw fileError(error, this.#path, "read");
    }
  }

  async #fill(buffer: Buffer, position: number): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      const rest = buffer.length - filled;
      const { bytesRead } = await read(this.#fd, buffer, filled, rest, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** At once: the system has it at hand for a file that is open. */
function statOf(fd: number): BigIntStats {
  return fstatSync(fd, { bigint: true });
}

/** What differs after a file was written to or replaced. */
function versionOf({ size, mtimeNs, ctimeNs, mode }: BigIntStats): string {
  return `${size} ${mtimeNs} ${ctimeNs} ${mode}`;
}

function changed(path: Buffer): CastoreError {
  return new CastoreError("aborted", `Cannot import ${showFilePath(path)}: it changed while read`);
}
