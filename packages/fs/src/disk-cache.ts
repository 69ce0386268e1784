import { open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type B3Digest, blake3Digest, CastoreError, makeFolder } from "@tvix/castore";

/** Options of {@link DiskCache.open}. */
export interface DiskCacheOptions {
  /** The folder, which is made if there is none. */
  readonly folder: string;
  /** Limit of the contents in it, in bytes. */
  readonly maxBytes: number;
  /** Is told once when the folder cannot be written or read. */
  readonly onWarning: (message: string) => void;
}

/** Contents and the digest that names them. */
export interface CachedContents {
  readonly digest: B3Digest;
  readonly contents: Uint8Array;
}

/** The file by which backup programs know a cache, see https://bford.info/cachedir/, and its first line. */
const TAG_FILE = "CACHEDIR.TAG";
const TAG = "Signature: 8a477f597d28d172789f06886806bc55";
const OWN_LINE = "# Contents that tvix-store mount has read.";

/** Contents are divided over so many folders, each of which has an equal share of the limit. */
const SHARDS = 16;
/** What is left of the share of a folder once the oldest contents were removed. */
const KEPT_SHARE = 0.8;
/** After how many new bytes, as a part of the share, a folder is counted again: other processes may fill it, too. */
const RECOUNT_SHARE = 0.1;
/** How old a temporary file is that a crash has left, and how long a use is not noted again, in milliseconds. */
const STALE_MS = 3_600_000;
const USE_MS = 60_000;
/** How many bytes wait to be written; more are left out. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** One of the folders. */
interface Shard {
  readonly path: string;
  /** Bytes that were found in it, and those that came since. */
  counted: number;
  added: number;
  isKnown: boolean;
}

/**
 * Keeps contents of blobs and chunks in a folder, those that were used last, up to a limit. Every one is a file of its own,
 * which appears whole or not at all. What is read is compared with its digest, so nothing needs to be durable. Several
 * processes may use one folder.
 */
export class DiskCache implements AsyncDisposable {
  readonly #options: DiskCacheOptions;
  readonly #shards: readonly Shard[];
  #writing: Promise<void> = Promise.resolve();
  #waitingBytes = 0;
  #lastTemporary = 0;
  #hasWarned = false;

  private constructor(options: DiskCacheOptions) {
    this.#options = options;
    this.#shards = Array.from({ length: SHARDS }, (_, i) => {
      return { path: join(options.folder, i.toString(16)), counted: 0, added: 0, isKnown: false };
    });
  }

  /**
   * Opens a folder, or makes it.
   *
   * @throws CastoreError `invalid_argument` for a folder that has other files, `permission_denied` for one that cannot be
   *   written
   */
  static async open(options: DiskCacheOptions): Promise<DiskCache> {
    const { folder } = options;
    const cache = new DiskCache(options);
    try {
      await makeFolder(folder, 0o700);
      const tag = await readFile(join(folder, TAG_FILE), "utf8").catch(() => "");
      if (!tag.includes(OWN_LINE)) {
        const [other] = await readdir(folder);
        if (other !== undefined) throw cannotUse(folder, `found ${JSON.stringify(other)} in it`);
        await writeFile(join(folder, TAG_FILE), `${TAG}\n${OWN_LINE}\n`);
      }
      for (const { path } of cache.#shards) await makeFolder(path, 0o700);
    } catch (error) {
      if (error instanceof CastoreError) throw error;
      const { message } = error as NodeJS.ErrnoException;
      throw new CastoreError(
        "permission_denied",
        `Cannot cache in ${JSON.stringify(folder)}: ${message}`,
        {
          cause: error,
        },
      );
    }
    return cache;
  }

  /** Returns contents, verified, in memory of their own; `undefined` if they are not there. */
  async get(digest: B3Digest, size: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const path = this.#pathOf(digest);
    try {
      await using file = await open(path, "r");
      const { size: found, mtimeMs } = await file.stat();
      const contents = new Uint8Array(size);
      const isRead = found === size && (await file.read(contents, 0, size, 0)).bytesRead === size;
      if (isRead && blake3Digest(contents).equals(digest)) {
        const now = Date.now();
        if (mtimeMs < now - USE_MS)
          await file.utimes(now / 1000, now / 1000).catch(() => undefined);
        return contents;
      }
      await rm(path, { force: true }); // it is damaged
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") this.#warn(error);
    }
    return undefined;
  }

  /** Stores contents in the background, unless too many wait. Nobody changes them before {@link settled}. */
  put(many: readonly CachedContents[]): void {
    for (const { digest, contents } of many) {
      const { length } = contents;
      if (length === 0 || length > this.#share || this.#waitingBytes + length > MAX_WAITING_BYTES)
        continue;
      this.#waitingBytes += length;
      const copy = Uint8Array.from(contents); // the original is moved to another thread
      this.#writing = this.#writing
        .then(() => this.#store(digest, copy))
        .catch((error) => this.#warn(error))
        .finally(() => {
          this.#waitingBytes -= length;
        });
    }
  }

  /** Waits until everything is written that was put. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settled();
  }

  get #share(): number {
    return this.#options.maxBytes / SHARDS;
  }

  #pathOf(digest: B3Digest): string {
    const { hex } = digest;
    return join(this.#options.folder, hex[0]!, hex.slice(1));
  }

  async #store(digest: B3Digest, contents: Uint8Array): Promise<void> {
    const shard = this.#shards[Number.parseInt(digest.hex[0]!, 16)]!;
    const isFull = shard.counted + shard.added + contents.length > this.#share;
    if (isFull || !shard.isKnown || shard.added > this.#share * RECOUNT_SHARE) {
      await this.#makeRoom(shard, contents.length);
    }
    this.#lastTemporary += 1;
    const temporary = join(shard.path, `tmp-${process.pid}-${this.#lastTemporary}`);
    try {
      await writeFile(temporary, contents, { mode: 0o600 });
      await rename(temporary, this.#pathOf(digest));
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw error;
    }
    shard.added += contents.length;
  }

  /** Counts what is in a folder, and removes what was not used for longest if the next contents do not fit. */
  async #makeRoom(shard: Shard, bytes: number): Promise<void> {
    const files: { path: string; size: number; usedMs: number }[] = [];
    let total = 0;
    const now = Date.now();
    for (const name of await readdir(shard.path)) {
      const path = join(shard.path, name);
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) continue; // another process has removed it
      if (name.startsWith("tmp-") && found.mtimeMs < now - STALE_MS) {
        await rm(path, { force: true });
        continue;
      }
      files.push({ path, size: found.size, usedMs: found.mtimeMs });
      total += found.size;
    }
    if (total + bytes > this.#share) {
      files.sort((a, b) => a.usedMs - b.usedMs);
      for (const { path, size } of files) {
        if (total + bytes <= this.#share * KEPT_SHARE || total === 0) break;
        await rm(path, { force: true });
        total -= size;
      }
    }
    shard.counted = total;
    shard.added = 0;
    shard.isKnown = true;
  }

  #warn(error: unknown): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    const { message } = error as Error;
    this.#options.onWarning(
      `Cannot use the cache in ${JSON.stringify(this.#options.folder)}: ${message}`,
    );
  }
}

function cannotUse(folder: string, found: string): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot cache in ${JSON.stringify(folder)}: expected an empty folder, or one that was used so before, ${found}; name another one`,
  );
}
