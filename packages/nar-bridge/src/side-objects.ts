import {
  type AbortOptions,
  collectAtMost,
  type GetObjectOptions,
  lruCache,
  type ObjectContents,
  type ObjectHead,
  type ObjectStore,
  type ObjectUpload,
} from "@tvix/castore";
import {
  decodePushedNar,
  encodePushedNar,
  type NarRecord,
  type PushedNar,
  withName,
} from "./pushed-nar.ts";

/** Folders of NARs that a narinfo names, and of those that none names yet. */
const NARS = "nar";
const UPLOADS = "upload";

/** How long the record of an upload outlives the upload at most, in milliseconds. */
const SETTLED_MS = 1000;

/** How many uploads are remembered, about 300 bytes each, and for how long, in milliseconds. */
const FRESH_UPLOADS = 1024;
const FRESH_MS = 60_000;

/** Folder of the digests of files that are made of what is stored, and how long each half of such a record is, in bytes. */
const FILE_HASHES = "file-hash";
const SHA256_BYTES = 32;

/** What is known of a file that is made of what is stored. */
export interface FileHash {
  /** Its SHA-256 digest, 32 bytes. */
  readonly sha256: Uint8Array;
  /** Differs where the file does, 32 bytes. */
  readonly madeOf: Uint8Array;
}

/** Longest record of a NAR, in bytes: most of it is the file, or the root node, which may be a symlink. */
const MAX_RECORD_BYTES = 64 * 1024;

/**
 * What belongs to the HTTP cache and is neither blob, directory nor PathInfo, in an object store that many processes may
 * share. This module owns its keys:
 *
 * - `nar/<file name>`, a NAR that was pushed under this name and that a narinfo names
 * - `upload/<file name>`, a NAR that no narinfo has named yet, and the file where its contents may not be stored yet
 * - `file-hash/<name>`, the SHA-256 digest of a file that is made of what is stored, and what tells that it is still made of
 *   the same: 32 bytes each. A tree has one, which is replaced where its file is another one
 * - the path in the cache of other files, such as logs: their bytes as they were pushed
 *
 * A NAR whose object is damaged counts as absent, so that pushing it again heals it.
 */
export class SideObjects {
  readonly #objects: ObjectStore;
  /** Uploads that were stored a moment ago: most clients name a NAR right after they have pushed it. */
  readonly #fresh = lruCache<string, PushedNar>(FRESH_UPLOADS, { ttlMs: FRESH_MS });
  /** Uploads that narinfos have named, whose records are about to be deleted. */
  readonly #settled = new Set<string>();
  #deleting: NodeJS.Timeout | undefined;

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /**
   * Returns the NAR that was pushed under a file name, such as `<hash>.nar.xz`, and the file, where its contents may not be
   * stored yet; `undefined` if there is none.
   */
  async getNar(
    fileName: string,
    options?: AbortOptions,
  ): Promise<Pick<NarRecord, "nar" | "file"> | undefined> {
    const nar = this.#fresh.get(fileName);
    if (nar !== undefined) return { nar, file: undefined };
    const named = await this.#readNar(`${NARS}/${fileName}`, options);
    return named ?? (await this.#readNar(`${UPLOADS}/${fileName}`, options));
  }

  /**
   * Stores a NAR that was pushed under a file name, until a narinfo names it or it is swept. It outlives this process; after a
   * power failure it may have to be pushed again.
   *
   * @param options `file` is the file, where its contents are not stored yet. Default: they are
   */
  async putUpload(
    fileName: string,
    nar: PushedNar,
    { file, ...options }: AbortOptions & { readonly file?: Uint8Array } = {},
  ): Promise<void> {
    const key = `${UPLOADS}/${fileName}`;
    this.#settled.delete(fileName);
    this.#deleteSettled(); // in the same transaction, where there are such
    await this.#objects.put(key, encodePushedNar(nar, file), { ...options, isDurable: false });
    if (file === undefined) this.#fresh.set(fileName, nar);
  }

  /** Notes that the contents of an upload, which was put with its file, are stored. */
  noteStored(fileName: string, nar: PushedNar): void {
    this.#fresh.set(fileName, nar);
  }

  /**
   * Stores a NAR that was pushed under a file name, and that the narinfo of a store path names.
   *
   * @param hashPart that of the store path, in nixbase32
   */
  async putNar(
    fileName: string,
    nar: PushedNar,
    hashPart: string,
    options?: AbortOptions,
  ): Promise<void> {
    const key = `${NARS}/${fileName}`;
    const named = await this.#readNar(key, options);
    await this.#objects.put(key, encodePushedNar(withName(nar, hashPart, named?.nar)), options);
  }

  /**
   * Has the record of a NAR deleted that waits for a narinfo no more: together with the next one that is stored, or a moment
   * later. If that fails, it is swept.
   */
  deleteUpload(fileName: string): void {
    this.#fresh.delete(fileName);
    this.#settled.add(fileName);
    this.#deleting ??= setTimeout(() => this.#deleteSettled(), SETTLED_MS).unref();
  }

  /**
   * Deletes the NARs that were pushed before a time, and that no narinfo has named. What is left of a narinfo that was never
   * stored, since the process was killed meanwhile, goes with them.
   *
   * @param beforeMs in milliseconds since 1970
   * @param isStored tells whether there is a store path with any of these hash parts
   */
  async sweepUploads(
    beforeMs: number,
    isStored: (hashParts: readonly string[]) => Promise<boolean>,
    options?: AbortOptions,
  ): Promise<void> {
    const prefix = `${UPLOADS}/`;
    for await (const { key } of this.#objects.list(prefix, options)) {
      const found = await this.#readNar(key, options);
      if (found === undefined || found.pushedMs >= beforeMs) continue;
      const namedKey = `${NARS}/${key.slice(prefix.length)}`;
      const names = (await this.#readNar(namedKey, options))?.nar.namedBy;
      if (names && !(await isStored(names))) await this.#objects.delete(namedKey, options);
      await this.#objects.delete(key, options);
    }
  }

  #deleteSettled(): void {
    clearTimeout(this.#deleting);
    this.#deleting = undefined;
    for (const fileName of this.#settled) {
      const key = `${UPLOADS}/${fileName}`;
      this.#objects.delete(key, { isDurable: false }).catch(() => undefined); // it is swept
    }
    this.#settled.clear();
  }

  /** Returns what is known of a file that is made of what is stored; `undefined` if nothing is. */
  async getFileHash(name: string, options?: AbortOptions): Promise<FileHash | undefined> {
    const contents = await this.#objects.get(`${FILE_HASHES}/${name}`, options);
    const bytes = contents && (await collectAtMost(contents, 2 * SHA256_BYTES));
    if (bytes?.length !== 2 * SHA256_BYTES) return undefined;
    return { sha256: bytes.slice(0, SHA256_BYTES), madeOf: bytes.slice(SHA256_BYTES) };
  }

  /** Keeps what is known of a file that is made of what is stored. After a power failure nothing may be. */
  async putFileHash(name: string, { sha256, madeOf }: FileHash): Promise<void> {
    const record = Buffer.concat([sha256, madeOf]);
    await this.#objects.put(`${FILE_HASHES}/${name}`, record, { isDurable: false });
  }

  /** Looks up a file that was pushed, by the parts of its path; `undefined` if there is none. */
  async head(path: readonly string[], options?: AbortOptions): Promise<ObjectHead | undefined> {
    return await this.#objects.head(keyOf(path), options);
  }

  /** Reads a file that was pushed, by the parts of its path; `undefined` if there is none. */
  async get(
    path: readonly string[],
    options?: GetObjectOptions,
  ): Promise<ObjectContents | undefined> {
    return await this.#objects.get(keyOf(path), options);
  }

  /** Stores a short file that is pushed, by the parts of its path. */
  async put(path: readonly string[], bytes: Uint8Array, options?: AbortOptions): Promise<void> {
    await this.#objects.put(keyOf(path), bytes, options);
  }

  /** Starts to store a file of any length that is pushed, by the parts of its path. */
  openUpload(path: readonly string[], options?: AbortOptions): ObjectUpload {
    return this.#objects.openUpload(keyOf(path), options);
  }

  async #readNar(key: string, options?: AbortOptions): Promise<NarRecord | undefined> {
    const contents = await this.#objects.get(key, options);
    const bytes = contents && (await collectAtMost(contents, MAX_RECORD_BYTES));
    try {
      return bytes && decodePushedNar(bytes);
    } catch {
      return undefined; // it is damaged
    }
  }
}

/** Returns the key of a file. Characters that no key has are written as `_` and two hexadecimal digits, as is `_` itself. */
function keyOf(path: readonly string[]): string {
  return path.map((part) => part.replace(/[^A-Za-z0-9.-]/g, escaped)).join("/");
}

function escaped(character: string): string {
  return `_${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
