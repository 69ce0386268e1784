import { randomUUID } from "node:crypto";
import { type BigIntStats, statSync } from "node:fs";
import { type FileHandle, link, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { makeFolder } from "../disk/make-folder.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { systemError } from "../model/system-error.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  DeleteObjectOptions,
  GetObjectOptions,
  ListObjectsOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store.ts";

/** Where files are written before they get their names. No key has a `~` in it. */
const UPLOADS = "~uploads";

/** A file there that nobody wrote to for so long belongs to no process any more. */
const ABANDONED_MS = 24 * 60 * 60 * 1000;

/** How many bytes are read at a time. */
const READ_BYTES = 256 * 1024;

/**
 * Keeps objects as files in a folder, of which several processes may make use. A file is written and synced
 * under another name first, then it gets its own, and the folder is synced: once for all who wait for that.
 */
export class FileObjectStore implements ObjectStore {
  readonly name: string;
  readonly #path: string;
  readonly #folders: FolderSync;

  #prepared: Promise<void> | undefined;

  /** @param path the folder, absolute. It is created when something is stored */
  constructor(path: string) {
    this.#path = resolve(path);
    this.#folders = new FolderSync(this.#path);
    this.name = `file://${encodeURI(path)}`;
  }

  async get(key: string, options?: GetObjectOptions): Promise<ObjectContents | undefined> {
    const found = await this.head(key, options);
    if (found === undefined) return undefined;
    resolveRange(found.size, options); // refuses what is no range before anything is read
    return Object.assign(this.#read(key, options), { version: found.version });
  }

  /** Tells at once that there is no object, `false`; otherwise there probably is one. */
  mayHave(key: string): boolean {
    try {
      return statFile(this.#file(key)) !== undefined;
    } catch {
      return true; // whoever looks it up is told
    }
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const found = await this.#try("look up", async () => statFile(this.#file(key)), key);
    return found && { key, size: Number(found.size), version: versionOf(found) };
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<void> {
    await using upload = this.openUpload(key, options);
    await upload.write(data);
    await upload.close();
  }

  openUpload(key: string, options: PutObjectOptions = {}): ObjectUpload {
    assertObjectKey(key);
    const { isDurable = true } = options;
    const target = this.#file(key);
    const temporary = this.#temporaryFile();
    const ended = () =>
      new CastoreError("invalid_argument", `Cannot store "${key}": the upload has ended`);
    const attempt = async <T>(action: () => Promise<T>): Promise<T> => {
      options.signal?.throwIfAborted();
      return await this.#try("store", action, key);
    };
    let file: FileHandle | undefined;
    let closed: Promise<void> | undefined;
    let isOver = false;
    const create = async (): Promise<FileHandle> => {
      await this.#prepare();
      return await open(temporary, "wx");
    };
    const finish = async (): Promise<void> => {
      file ??= await create();
      if (isDurable) await file.datasync();
      await file.close();
      file = undefined;
      options.signal?.throwIfAborted();
      await this.#folders.make(dirname(target));
      await rename(temporary, target);
      if (isDurable) await this.#folders.sync(dirname(target));
    };
    return {
      write: async (data) => {
        if (isOver || closed) throw ended();
        await attempt(async () => {
          file ??= await create();
          await file.appendFile(data);
        });
      },
      close: () => {
        if (isOver) return Promise.reject(ended());
        closed ??= attempt(finish);
        return closed;
      },
      [Symbol.asyncDispose]: async () => {
        isOver = true;
        await closed?.catch(() => undefined); // close() has told
        await file?.close();
        file = undefined;
        await rm(temporary).catch(ifAbsent);
      },
    };
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after = "", signal } = options;
    signal?.throwIfAborted();
    yield* this.#list("", prefix, after, signal);
  }

  async delete(key: string, options: DeleteObjectOptions = {}): Promise<void> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    const file = this.#file(key);
    const { version, isDurable = true } = options;
    const remove = async () => {
      if (version !== undefined) return await this.#removeVersion(file, version);
      return (await rm(file).catch(ifAbsent)) !== null;
    };
    await this.#try(
      "delete",
      async () => {
        const isRemoved = await remove();
        if (isRemoved && isDurable) await this.#folders.sync(dirname(file));
      },
      key,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing stays open between calls.
  }

  /** Makes the folder for uploads, or removes what was left in it a day ago. Done once; whoever fails tries again. */
  #prepare(): Promise<void> {
    this.#prepared ??= this.#clean().catch((error) => {
      this.#prepared = undefined;
      throw error;
    });
    return this.#prepared;
  }

  async #clean(): Promise<void> {
    const uploads = join(this.#path, UPLOADS);
    await this.#folders.make(uploads);
    for (const name of await readdir(uploads)) {
      const file = join(uploads, name);
      const found = await stat(file).catch(ifAbsent);
      if (found && Date.now() - found.mtimeMs > ABANDONED_MS) await rm(file, { force: true });
    }
  }

  /**
   * Removes a file if it is of a version. A file system removes whatever has a name, so the file is moved out of the way
   * first; another one than was meant is moved back, unless there is a new one by then.
   *
   * @returns whether there was one of that version
   */
  async #removeVersion(file: string, version: string): Promise<boolean> {
    const found = statFile(file);
    if (found === undefined || versionOf(found) !== version) return false;
    await this.#prepare();
    const aside = this.#temporaryFile();
    await rename(file, aside);
    const moved = statFile(aside);
    if (moved !== undefined && versionOf(moved) !== version) {
      await link(aside, file).catch(ifPresent);
      await this.#folders.sync(dirname(file));
    }
    await rm(aside);
    return true;
  }

  #temporaryFile(): string {
    return join(this.#path, UPLOADS, randomUUID());
  }

  #file(key: string): string {
    return join(this.#path, key);
  }

  /** What is read is the object as it was when the file was opened, though it may be replaced meanwhile. */
  async *#read(key: string, options?: GetObjectOptions): AsyncGenerator<Uint8Array> {
    const read = <T>(run: () => Promise<T>) => this.#try("read", run, key);
    await using file = await read(() => open(this.#file(key)).catch(ifAbsent));
    if (file === null) {
      const text = `Cannot read "${this.#file(key)}": it was deleted meanwhile`;
      throw new CastoreError("aborted", text);
    }
    const { size } = await read(() => file.stat());
    const { start, end } = resolveRange(size, options);
    for (let at = start; at < end; ) {
      options?.signal?.throwIfAborted();
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - at));
      const position = at;
      const { bytesRead } = await read(() => file.read(buffer, 0, buffer.length, position));
      if (bytesRead === 0) return; // somebody cut the file: whoever reads it verifies what came
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** The objects below a folder, whose name ends with `/` unless it is empty. */
  async *#list(
    folder: string,
    prefix: string,
    after: string,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ObjectMeta> {
    const read = () => readdir(join(this.#path, folder), { withFileTypes: true }).catch(ifAbsent);
    const entries = (await this.#try("list", read, folder)) ?? [];
    // A folder sorts as its name does with what follows in the keys.
    const keys = entries
      .filter((entry) => !entry.name.startsWith("~"))
      .map((entry) => `${folder}${entry.name}${entry.isDirectory() ? "/" : ""}`)
      .sort();
    for (const key of keys) {
      signal?.throwIfAborted();
      if (key.endsWith("/")) {
        const overlaps = key.startsWith(prefix) || prefix.startsWith(key);
        const isBehind = key > after || after.startsWith(key);
        if (overlaps && isBehind) yield* this.#list(key, prefix, after, signal);
      } else if (key.startsWith(prefix) && key > after) {
        const found = await this.head(key);
        if (found !== undefined) yield found;
      }
    }
  }

  async #try<T>(action: string, run: () => Promise<T>, key = ""): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw systemError(error, `Cannot ${action} "${join(this.#path, key)}"`);
    }
  }
}

/** How many folders are remembered to be durable. */
const REMEMBERED_FOLDERS = 10_000;

/** Syncs folders, each as often as is needed for all who wait for that, and not once more. */
class FolderSync {
  readonly #root: string;
  /** The sync of a folder that has begun, and the one that begins afterwards. */
  readonly #syncs = new Map<string, { running: Promise<void>; next?: Promise<void> }>();
  /** Folders below the root whose own entry, and those above, are known to be durable. */
  readonly #durable = new Set<string>();

  /** @param root the folder above all others, which is the first to be made */
  constructor(root: string) {
    this.#root = root;
  }

  /** Makes the entries of a folder durable that it has now. */
  sync(path: string): Promise<void> {
    const found = this.#syncs.get(path);
    if (found === undefined) return this.#run(path);
    found.next ??= found.running.catch(() => undefined).then(() => this.#run(path));
    return found.next;
  }

  /** Makes a folder, and those above it, where they do not exist. They are durable then, whoever made them. */
  async make(path: string): Promise<void> {
    const first = await makeFolder(path);
    if (first !== undefined) {
      for (let made = path; made.length >= first.length; made = dirname(made)) {
        this.#durable.delete(made); // it was there before, and somebody removed it
      }
      for (let made = this.#root; made.length >= first.length; made = dirname(made)) {
        await this.sync(dirname(made));
      }
    }
    await this.#settle(path);
  }

  async #settle(path: string): Promise<void> {
    if (path === this.#root || this.#durable.has(path)) return;
    const above = dirname(path);
    await this.#settle(above);
    await this.sync(above);
    if (this.#durable.size >= REMEMBERED_FOLDERS) this.#durable.clear();
    this.#durable.add(path);
  }

  #run(path: string): Promise<void> {
    const running = syncFolder(path).finally(() => {
      if (this.#syncs.get(path)?.running === running) this.#syncs.delete(path);
    });
    this.#syncs.set(path, { running });
    return running;
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path);
  await folder.sync();
}

/** Looks at a file; `undefined` if there is none. In this thread: to wake another takes longer. */
function statFile(path: string): BigIntStats | undefined {
  try {
    const found = statSync(path, { bigint: true, throwIfNoEntry: false });
    return found?.isFile() ? found : undefined;
  } catch (error) {
    return ifAbsent(error as NodeJS.ErrnoException) ?? undefined;
  }
}

function versionOf({ ino, size, mtimeNs }: BigIntStats): string {
  return `${ino}-${size}-${mtimeNs}`;
}

function ifPresent(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error;
}

/** Returns `null` where there is no file. */
function ifAbsent(error: NodeJS.ErrnoException): null {
  if (["ENOENT", "ENOTDIR", "ENAMETOOLONG"].includes(error.code ?? "")) return null; // a name that is too long cannot be there
  throw error;
}
