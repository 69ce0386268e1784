import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { CastoreError } from "../errors.ts";
import { fileError, showFilePath } from "./file-error.ts";

/** Bytes per read of a file that is not read whole. */
const READ_SIZE = 1024 * 1024;

/**
 * A regular file that is being read. Reading finds out if it changes meanwhile: what is imported is
 * a state that the file had, or an error.
 */
export class SourceFile implements AsyncDisposable {
  readonly size: number;
  readonly executable: boolean;
  readonly #path: Buffer;
  readonly #handle: FileHandle;
  readonly #version: string;

  private constructor(path: Buffer, handle: FileHandle, stat: FileStat) {
    this.#path = path;
    this.#handle = handle;
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
    let handle: FileHandle;
    try {
      // Not through a symlink, and without waiting for the writer of a fifo: either would mean that
      // the path was replaced after its folder was listed.
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      handle = await open(path, flags);
    } catch (error) {
      throw fileError(error, path, "read");
    }
    try {
      const stat = await handle.stat({ bigint: true });
      if (!stat.isFile()) throw changed(path);
      return new SourceFile(path, handle, stat);
    } catch (error) {
      await handle.close();
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
      const stat = await this.#handle.stat({ bigint: true });
      if (position !== this.size || versionOf(stat) !== this.#version) throw changed(this.#path);
    } catch (error) {
      throw fileError(error, this.#path, "read");
    }
  }

  async #fill(buffer: Buffer, position: number): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      const rest = buffer.length - filled;
      const { bytesRead } = await this.#handle.read(buffer, filled, rest, position + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

type FileStat = Awaited<ReturnType<typeof statOf>>;
const statOf = (handle: FileHandle) => handle.stat({ bigint: true });

/** What differs after a file was written to or replaced. */
function versionOf({ size, mtimeNs, ctimeNs, mode }: FileStat): string {
  return `${size} ${mtimeNs} ${ctimeNs} ${mode}`;
}

function changed(path: Buffer): CastoreError {
  return new CastoreError("aborted", `Cannot import ${showFilePath(path)}: it changed while read`);
}
