import { randomBytes } from "node:crypto";
import { type FileHandle, open, realpath, rename, stat, unlink } from "node:fs/promises";
import { showFilePath, systemError } from "@tvix/castore";

/**
 * A file that appears under its name once it is complete, in place of an earlier one. Disposing of it before that leaves
 * nothing. What is no regular file, such as a pipe or a device, is written to as it is.
 */
export class NewFile implements AsyncDisposable {
  readonly #path: string | Buffer;
  readonly #handle: FileHandle;
  /** Where it is written, and where it goes; `undefined` if that is the same. */
  #move: { readonly from: Buffer; readonly to: Buffer } | undefined;

  private constructor(
    path: string | Buffer,
    handle: FileHandle,
    move: { readonly from: Buffer; readonly to: Buffer } | undefined,
  ) {
    this.#path = path;
    this.#handle = handle;
    this.#move = move;
  }

  /**
   * Starts a file.
   *
   * @throws CastoreError if the system refuses it
   */
  static async create(path: string | Buffer): Promise<NewFile> {
    try {
      const stats = await stat(path).catch(ifAbsent);
      if (stats !== undefined && !stats.isFile()) {
        return new NewFile(path, await open(path, "r+"), undefined);
      }
      const to = stats === undefined ? Buffer.from(path) : await realpath(path, "buffer");
      const folder = to.subarray(0, to.lastIndexOf("/") + 1);
      const from = Buffer.concat([folder, Buffer.from(`.tvix-${randomBytes(8).toString("hex")}`)]);
      return new NewFile(path, await open(from, "wx"), { from, to });
    } catch (error) {
      throw refusal(error, path);
    }
  }

  /**
   * Adds bytes.
   *
   * @throws CastoreError if the system refuses it, such as `resource_exhausted` on a full disk
   */
  async write(data: Uint8Array): Promise<void> {
    try {
      await this.#handle.writeFile(data);
    } catch (error) {
      throw refusal(error, this.#path);
    }
  }

  /** Gives the file its name. */
  async close(): Promise<void> {
    try {
      await this.#handle.close();
      if (this.#move !== undefined) await rename(this.#move.from, this.#move.to);
      this.#move = undefined;
    } catch (error) {
      throw refusal(error, this.#path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close(); // again, to no effect
    if (this.#move !== undefined) await unlink(this.#move.from);
  }
}

function refusal(error: unknown, path: string | Buffer): unknown {
  return systemError(error, `Cannot write ${showFilePath(Buffer.from(path))}`);
}

function ifAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
