import { randomUUID } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CastoreError, copyBytes, equalBytes } from "@tvix/castore";

/** Longest piece that is read at once, in bytes. */
const READ_BYTES = 256 * 1024;

/** How many more bytes all spools may write. */
export interface SpoolSpace {
  free: number;
}

/**
 * The bytes of a NAR while it is downloaded, in a temporary file without a name. They are written once, and read by many
 * meanwhile. The last piece is in memory until the next one comes, so that a NAR of one piece needs no file.
 *
 * Where there is no space, or the disk fails, the spool ends early: what follows is not kept.
 */
export class Spool implements AsyncDisposable {
  readonly #space: SpoolSpace;
  #file: FileHandle | undefined;
  #written = 0;
  #last: Uint8Array = new Uint8Array();
  #isFull = false;

  constructor(space: SpoolSpace) {
    this.#space = space;
  }

  /** How many bytes are in the file. */
  get written(): number {
    return this.#written;
  }

  /** How many bytes can be read, with those of the last piece. */
  get kept(): number {
    return this.#written + this.#last.length;
  }

  /**
   * Keeps a piece, which the caller does not change any more. What is kept already, as a download was begun anew, has to
   * be the same.
   *
   * @param offset where the piece begins, not beyond the end of what came before
   * @throws CastoreError `aborted` if it is not the same: one of both is wrong
   */
  async put(offset: number, piece: Uint8Array): Promise<void> {
    const known = Math.max(0, Math.min(piece.length, this.kept - offset));
    for (let at = 0; at < known; ) {
      const kept = await this.read(offset + at, offset + known);
      if (!equalBytes(kept, piece.subarray(at, at + kept.length))) {
        const message = `Cannot go on with a download: it differs from before after ${offset + at} bytes`;
        throw new CastoreError("aborted", message);
      }
      at += kept.length;
    }
    if (known === piece.length || this.#isFull) return;
    await this.#writeLast();
    if (!this.#isFull) this.#last = piece.subarray(known);
  }

  /** Reads some bytes, at least one, where `offset < kept` and `offset < end`. They belong to the caller. */
  async read(offset: number, end: number): Promise<Uint8Array> {
    if (offset >= this.#written) {
      return copyBytes(this.#last.subarray(offset - this.#written, end - this.#written));
    }
    const length = Math.min(READ_BYTES, Math.min(end, this.#written) - offset);
    const { bytesRead, buffer } = await this.#file!.read(
      Buffer.allocUnsafe(length),
      0,
      length,
      offset,
    );
    if (bytesRead > 0) return buffer.subarray(0, bytesRead);
    throw new CastoreError("internal", "Cannot read a temporary file: it ends too early");
  }

  /** Returns what is kept from an offset on, if it is within the last piece of the whole NAR. */
  rest(offset: number, size: number): Uint8Array | undefined {
    if (this.kept !== size || offset < this.#written) return undefined;
    return this.#last.subarray(offset - this.#written);
  }

  /** Removes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#space.free += this.#written;
    this.#isFull = true;
    await this.#file?.close(); // after reads in flight
  }

  async #writeLast(): Promise<void> {
    const { length } = this.#last;
    if (length === 0) return;
    this.#isFull = this.#space.free < length;
    if (this.#isFull) return;
    this.#space.free -= length;
    try {
      this.#file ??= await openTemporary();
      for (let at = 0; at < length; ) {
        at += (await this.#file.write(this.#last, at, length - at, this.#written + at))
          .bytesWritten;
      }
      this.#written += length;
      this.#last = new Uint8Array();
    } catch {
      this.#space.free += length;
      this.#isFull = true;
    }
  }
}

async function openTemporary(): Promise<FileHandle> {
  const path = join(tmpdir(), `tvix-nar-${randomUUID()}`);
  const file = await open(path, "wx+", 0o600);
  await unlink(path);
  return file;
}
