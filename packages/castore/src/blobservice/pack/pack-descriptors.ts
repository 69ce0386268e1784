import { closeSync, openSync, read } from "node:fs";
import { promisify } from "node:util";
import { fillSync } from "../../disk/source-file.ts";
import { systemError } from "../../model/system-error.ts";

const readFile = promisify(read);

/** How many descriptors are kept that nobody uses. */
const MAX_SPARE = 64;

/** The descriptor of a pack, and how many use it. */
interface OpenPack {
  readonly fd: number;
  uses: number;
}

/** Opens packs for reading when they are needed, and keeps them open: to open and close one takes longer than many reads. */
export class PackDescriptors implements Disposable {
  readonly #pathOf: (pack: number) => string;
  /** By number of the pack, those first that were used the longest time ago. */
  readonly #open = new Map<number, OpenPack>();
  #isDisposed = false;

  constructor(pathOf: (pack: number) => string) {
    this.#pathOf = pathOf;
  }

  /** Returns the path of a pack. */
  pathOf(pack: number): string {
    return this.#pathOf(pack);
  }

  /**
   * Returns the descriptor of a pack, which stays open until it is given back.
   *
   * @throws ErrnoException if the system refuses
   */
  take(pack: number): number {
    let open = this.#open.get(pack);
    if (open === undefined) {
      this.#closeSpare(MAX_SPARE - 1);
      open = { fd: openSync(this.#pathOf(pack), "r"), uses: 0 };
    } else {
      this.#open.delete(pack);
    }
    this.#open.set(pack, open);
    open.uses += 1;
    return open.fd;
  }

  /** Gives back a descriptor that was taken. */
  give(pack: number): void {
    this.#open.get(pack)!.uses -= 1;
    if (this.#isDisposed) this.#closeSpare(0);
  }

  /**
   * Reads a range of a pack, in the thread pool of Node.js. Returns how many bytes of it there are: none if the pack does not
   * exist.
   *
   * @throws CastoreError by cause if the system refuses to read
   */
  async read(pack: number, offset: number, target: Uint8Array): Promise<number> {
    try {
      const fd = this.take(pack);
      try {
        let filled = 0;
        while (filled < target.length) {
          const left = target.length - filled;
          const { bytesRead } = await readFile(fd, target, filled, left, offset + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return filled;
      } finally {
        this.give(pack);
      }
    } catch (error) {
      return this.#missing(pack, error);
    }
  }

  /** Reads as {@link read} does, and blocks the thread. */
  readSync(pack: number, offset: number, target: Uint8Array): number {
    try {
      const fd = this.take(pack);
      try {
        return fillSync(fd, target, offset);
      } finally {
        this.give(pack);
      }
    } catch (error) {
      return this.#missing(pack, error);
    }
  }

  /** Closes all, those that are in use once they are given back. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#closeSpare(0);
  }

  /** Returns how much there is of a pack that does not exist; throws any other error. */
  #missing(pack: number, error: unknown): 0 {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw systemError(error, `Cannot read pack "${this.#pathOf(pack)}"`);
  }

  /** Closes those that nobody uses until only so many are open. */
  #closeSpare(most: number): void {
    for (const [pack, { fd, uses }] of this.#open) {
      if (this.#open.size <= most) return;
      if (uses > 0) continue;
      this.#open.delete(pack);
      closeSync(fd);
    }
  }
}
