import { type EntryState, STATE_NUMBERS, writeState } from "../disk/entry-state.ts";
import { blake3 } from "../hash/blake3.ts";

/** How many entries are hashed together. */
const HASHED_TOGETHER = 512;

/**
 * Tells a tree of the local file system from what it was at another time, by what the file system says of each entry: path,
 * type, permissions, length, inode, and when it was changed. Contents are not read. As with other tools that go by times, a
 * change stays unseen where it leaves all of that as it was: `ctime`, which programs cannot set, has to be that of before.
 */
export class TreeStamp {
  readonly #hasher = blake3.createHasher();
  /** Paths and states of entries that are to be hashed. */
  #paths: string[] = [];
  readonly #states = new Float64Array(HASHED_TOGETHER * STATE_NUMBERS);
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
      this.#hasher.update(Buffer.from(`${this.#entries}`)); // tells paths and states of the last ones apart
      this.#digest = Buffer.from(this.#hasher.digest()).toString("hex");
    }
    return this.#digest;
  }

  /** Adds an entry. The order is that of the walk. */
  add(path: string, state: EntryState): void {
    writeState(this.#states, this.#paths.push(path) - 1, state);
    this.#entries += 1;
    this.#newestMs = Math.max(this.#newestMs, state.mtimeMs, state.ctimeMs);
    if (this.#paths.length === HASHED_TOGETHER) this.#flush();
  }

  #flush(): void {
    const states = this.#states.subarray(0, this.#paths.length * STATE_NUMBERS);
    this.#hasher.update(new Uint8Array(states.buffer, 0, states.byteLength));
    this.#hasher.update(Buffer.from(`${this.#paths.join("\0")}\0`, "latin1"));
    this.#paths = [];
  }
}
