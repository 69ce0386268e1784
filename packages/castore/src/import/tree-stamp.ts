import type { EntryState } from "../disk/source-file.ts";
import { blake3 } from "../hash/blake3.ts";

/** Length of text that is hashed together, in characters. */
const HASHED_TOGETHER = 64 * 1024;

/**
 * Tells a tree of the local file system from what it was at another time, by what the file system says of each entry: path,
 * type, permissions, length, inode, and when it was changed. Contents are not read. As with other tools that go by times, a
 * change stays unseen where it leaves all of that as it was: `ctime`, which programs cannot set, has to be that of before.
 */
export class TreeStamp {
  readonly #hasher = blake3.createHasher();
  #text = "";
  #digest: string | undefined;
  #entries = 0;
  #newestMs = 0;

  /** How many entries there are, the root included. */
  get entries(): number {
    return this.#entries;
  }

  /**
   * When the last change was made, in milliseconds since 1970, as the clock of the file system tells it. What is changed right
   * behind that, or while the tree is read, might get the same times.
   */
  get newestMs(): number {
    return this.#newestMs;
  }

  /** A text that differs where anything of the tree does. Nothing is added from then on. */
  get digest(): string {
    if (this.#digest === undefined) {
      this.#flush();
      this.#digest = Buffer.from(this.#hasher.digest()).toString("hex");
    }
    return this.#digest;
  }

  /** Adds an entry. The order is that of the walk. */
  add(path: string, { dev, ino, mode, size, mtimeMs, ctimeMs }: EntryState): void {
    this.#text += `${path}\0${dev} ${ino} ${mode} ${size} ${mtimeMs} ${ctimeMs}\n`;
    this.#entries += 1;
    this.#newestMs = Math.max(this.#newestMs, mtimeMs, ctimeMs);
    if (this.#text.length >= HASHED_TOGETHER) this.#flush();
  }

  #flush(): void {
    this.#hasher.update(Buffer.from(this.#text, "latin1"));
    this.#text = "";
  }
}
