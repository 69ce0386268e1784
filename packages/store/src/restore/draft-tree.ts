import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { open } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as yieldToEvents } from "node:timers/promises";
import { type FileNode, type SymlinkTarget, showFilePath, systemError } from "@tvix/castore";
import { StoreError } from "../errors.ts";

/** The permissions of files and folders in a Nix store, and of files that may be executed. */
const READ_ONLY = 0o444;
const EXECUTABLE = 0o555;

/** The modification time of everything in a Nix store, in seconds since 1970. */
const MTIME = 1;

/** How long the thread is kept, in milliseconds, before other events have their turn. */
const TURN_MS = 10;

/**
 * A tree in the file system that appears under its name once it is complete. Until then it is beside it, in a folder or
 * file for its owner only. Disposing of it before that removes it.
 *
 * Everything is created by this process: what exists is neither followed nor replaced.
 */
export class DraftTree implements AsyncDisposable {
  /** Where it is built. */
  readonly path: Buffer;
  readonly #target: Buffer;
  #isPlaced = false;
  #turnEnd = performance.now() + TURN_MS;

  /**
   * Makes the draft of a target. Creates nothing yet.
   *
   * @throws StoreError `invalid_argument` if there is something at the target, `not_found` if there is no folder for it
   */
  constructor(target: Buffer) {
    this.#target = target;
    const folder = Buffer.from(dirname(target.toString("latin1")), "latin1"); // one character for each byte
    const name = Buffer.from(`.tvix-${randomBytes(8).toString("hex")}`);
    this.path = Buffer.concat([folder, SLASH, name]);
    this.#expectNothing();
    if (!fs.existsSync(folder)) {
      const reason = `the folder ${showFilePath(folder)} does not exist`;
      throw new StoreError("not_found", `Cannot restore to ${showFilePath(target)}: ${reason}`);
    }
  }

  /** Creates a folder, which is complete after {@link finishFolder}. */
  async startFolder(path: Buffer): Promise<void> {
    await this.#turn();
    this.#create(path, () => fs.mkdirSync(path, 0o700));
  }

  async finishFolder(path: Buffer): Promise<void> {
    await this.#turn();
    this.#create(path, () => {
      fs.utimesSync(path, MTIME, MTIME);
      fs.chmodSync(path, EXECUTABLE);
    });
  }

  async symlink(path: Buffer, target: SymlinkTarget): Promise<void> {
    await this.#turn();
    this.#create(path, () => {
      fs.symlinkSync(Buffer.from(target), path);
      fs.lutimesSync(path, MTIME, MTIME);
    });
  }

  /** Writes a small file. */
  async file(path: Buffer, { executable }: FileNode, contents: Uint8Array): Promise<void> {
    await this.#turn();
    // To wait for another thread takes longer than to write a small file.
    this.#create(path, () => {
      const file = fs.openSync(path, "wx", 0o600);
      try {
        fs.writeFileSync(file, contents);
        fs.fchmodSync(file, executable ? EXECUTABLE : READ_ONLY);
        fs.futimesSync(file, MTIME, MTIME);
      } finally {
        fs.closeSync(file);
      }
    });
  }

  /**
   * Writes a file piece by piece.
   *
   * @param onData is called with each piece while it is being written
   */
  async stream(
    path: Buffer,
    { executable }: FileNode,
    contents: AsyncIterable<Uint8Array>,
    onData: (data: Uint8Array) => void,
  ): Promise<void> {
    try {
      await using file = await open(path, "wx", 0o600);
      for await (const data of contents) {
        const written = file.writeFile(data);
        onData(data);
        await written;
      }
      await file.chmod(executable ? EXECUTABLE : READ_ONLY);
      await file.utimes(MTIME, MTIME);
    } catch (error) {
      throw this.#error(error, path);
    }
  }

  /**
   * Moves the draft to the target, in one step.
   *
   * @throws StoreError `invalid_argument` if there is something at the target meanwhile
   */
  place(): void {
    this.#expectNothing();
    this.#create(this.path, () => {
      if (fs.lstatSync(this.path).isFile()) linkOrRename(this.path, this.#target);
      else fs.renameSync(this.path, this.#target); // of a folder, replaces an empty one at most
    });
    this.#isPlaced = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isPlaced) await this.#remove(this.path);
  }

  async #remove(path: Buffer): Promise<void> {
    await this.#turn();
    if (!fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
      fs.rmSync(path, { force: true });
      return;
    }
    fs.chmodSync(path, 0o700); // a finished folder is read-only
    for (const name of fs.readdirSync(path, "buffer")) {
      await this.#remove(Buffer.concat([path, SLASH, name]));
    }
    fs.rmdirSync(path);
  }

  #expectNothing(): void {
    let stats: fs.Stats | undefined;
    try {
      stats = fs.lstatSync(this.#target, { throwIfNoEntry: false });
    } catch (error) {
      throw this.#error(error, this.path);
    }
    if (stats === undefined) return;
    throw new StoreError(
      "invalid_argument",
      `Cannot restore to ${showFilePath(this.#target)}: it exists already`,
    );
  }

  /** Lets other events have their turn, such as signals, if they waited for long enough. */
  async #turn(): Promise<void> {
    if (performance.now() < this.#turnEnd) return;
    await yieldToEvents();
    this.#turnEnd = performance.now() + TURN_MS;
  }

  #create(path: Buffer, create: () => void): void {
    try {
      create();
    } catch (error) {
      throw this.#error(error, path);
    }
  }

  /** Returns the error of the system about a path of the draft, as one about that below the target. */
  #error(error: unknown, path: Buffer): unknown {
    const final = Buffer.concat([this.#target, path.subarray(this.path.length)]);
    return systemError(error, `Cannot restore to ${showFilePath(final)}`);
  }
}

/** Renames a file. Replaces nothing, where the file system has hard links. */
function linkOrRename(path: Buffer, target: Buffer): void {
  try {
    fs.linkSync(path, target);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(code)) throw error;
    fs.renameSync(path, target);
    return;
  }
  fs.unlinkSync(path);
}

const SLASH = Buffer.from("/");
