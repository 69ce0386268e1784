import { constants, mkdirSync } from "node:fs";
import { type FileHandle, open, truncate } from "node:fs/promises";
import { join } from "node:path";
import { concatBytes } from "../../bytes.ts";
import { syncFolder } from "../../sqlite/database.ts";
import { systemError } from "../../system-error.ts";

/** How many packs are kept open for reading. */
const MAX_OPEN = 64;

/** How many buffers are given to the system at once. */
const MAX_BUFFERS = 512;

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
}

/** The pack files in a folder, by number. */
export class PackFiles implements AsyncDisposable {
  readonly #folder: string;
  /** Open packs, the one used longest ago first. */
  readonly #open = new Map<number, OpenFile>();

  /** @param folder is created if it does not exist */
  constructor(folder: string) {
    try {
      mkdirSync(folder, { recursive: true });
    } catch (error) {
      throw systemError(error, `Cannot make folder "${folder}"`);
    }
    this.#folder = folder;
  }

  /** The path of a pack. */
  pathOf(pack: number): string {
    return join(this.#folder, `${pack.toString(16).padStart(8, "0")}.pack`);
  }

  /**
   * Reads from a pack; `undefined` if it does not exist or ends before.
   *
   * @throws CastoreError `unavailable` and the like if the system cannot read it
   */
  async read(pack: number, offset: number, length: number): Promise<Uint8Array | undefined> {
    const file = this.#use(pack);
    try {
      const handle = await file.handle;
      const buffer = Buffer.allocUnsafeSlow(length);
      for (let filled = 0; filled < length; ) {
        const rest = length - filled;
        const { bytesRead } = await handle.read(buffer, filled, rest, offset + filled);
        if (bytesRead === 0) return undefined;
        filled += bytesRead;
      }
      return buffer;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw systemError(error, `Cannot read pack "${this.pathOf(pack)}"`);
    } finally {
      file.users -= 1;
      this.#closeUnused(MAX_OPEN);
    }
  }

  /**
   * Writes parts one after the other into a pack, from `offset` on, and makes them durable.
   *
   * @throws CastoreError `resource_exhausted` if there is no room, `unavailable` and the like
   */
  async write(pack: number, offset: number, parts: readonly Uint8Array[]): Promise<void> {
    try {
      await using handle = await open(
        this.pathOf(pack),
        constants.O_WRONLY | constants.O_CREAT,
        0o644,
      );
      let position = offset;
      for (let i = 0; i < parts.length; i += MAX_BUFFERS) {
        position += await writeAll(handle, parts.slice(i, i + MAX_BUFFERS), position);
      }
      await handle.datasync();
      if (offset === 0) syncFolder(this.#folder); // it is new
    } catch (error) {
      throw systemError(error, `Cannot write pack "${this.pathOf(pack)}"`);
    }
  }

  /** Cuts a pack off at a length, if that can be done. */
  async truncate(pack: number, length: number): Promise<void> {
    await truncate(this.pathOf(pack), length).catch(() => undefined); // only saves room
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#open.values()].map(({ handle }) =>
        handle.then((handle) => handle.close()).catch(() => undefined),
      ),
    );
    this.#open.clear();
  }

  #use(pack: number): OpenFile {
    const file = this.#open.get(pack) ?? { handle: open(this.pathOf(pack), "r"), users: 0 };
    if (file.users === 0) file.handle.catch(() => this.#open.delete(pack)); // tried again next time
    this.#open.delete(pack);
    this.#open.set(pack, file);
    file.users += 1;
    return file;
  }

  #closeUnused(limit: number): void {
    for (const [pack, { handle, users }] of this.#open) {
      if (this.#open.size <= limit) return;
      if (users > 0) continue;
      this.#open.delete(pack);
      handle.then((handle) => handle.close()).catch(() => undefined); // was only read from
    }
  }
}

/** Writes parts and gives their length. The system may take less than it is given. */
async function writeAll(
  handle: FileHandle,
  parts: readonly Uint8Array[],
  position: number,
): Promise<number> {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const { bytesWritten } = await handle.writev(parts as Uint8Array[], position);
  if (bytesWritten < length) {
    const rest = concatBytes(parts).subarray(bytesWritten);
    for (let at = 0; at < rest.length; ) {
      const written = await handle.write(rest, at, rest.length - at, position + bytesWritten + at);
      at += written.bytesWritten;
    }
  }
  return length;
}
