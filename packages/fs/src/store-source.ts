import {
  B3Digest,
  type BlobReader,
  type BlobService,
  CastoreError,
  type ChunkMeta,
  Directory,
  type DirectoryService,
  hasCode,
  mapSome,
  pathComponent,
  SingleFlight,
  unlessAborted,
} from "@tvix/castore";
import { type PathInfo, type PathInfoService, StorePath } from "@tvix/store";
import { LRUCache } from "lru-cache";
import type { DiskCache } from "./disk-cache.ts";
import {
  type Answer,
  type ContentsNeed,
  type Held,
  lengthOf,
  type Need,
  type RootPage,
  type Supplies,
} from "./need.ts";
import { packDirectory } from "./pack-directory.ts";
import type { PackedBytes } from "./packed-directory.ts";
import { Patience } from "./patience.ts";
import { PendingFetch } from "./pending-fetch.ts";
import { ERRNO } from "./protocol/constants.ts";

/** The services that a file system shows. */
export interface MountedServices {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
}

/** Options of {@link StoreSource}. */
export interface StoreSourceOptions {
  /** Time limit of one fetch, with its repetitions, in milliseconds; 0 for none. */
  readonly timeoutMs: number;
  /** Is told once when a store becomes unavailable, and once when it is back. */
  readonly onOutage: (error: CastoreError | undefined) => void;
  /** Keeps contents on disk. Belongs to the caller. Default: they are kept in memory alone. */
  readonly diskCache?: DiskCache | undefined;
  /** Names of the stores, for errors about what is absent in them. */
  readonly storeNames: { readonly blobs: string; readonly directories: string };
  /** Is told why something cannot be read: a program sees an errno only. */
  readonly onError: (error: CastoreError, errno: number) => void;
}

/** How many blobs are open at most. */
const MAX_READERS = 256;
/** How many store paths a page of the root has. */
const PAGE_PATHS = 1024;

/** About how many bytes of contents are read by one call: the first of them waits for the last. */
const BATCH_BYTES = 2 * 1024 * 1024;

/**
 * When a call for many has taken so many milliseconds, each of them is also fetched by a call of its own, so many at a time: one
 * that hangs delays no other.
 */
const SLOW_MS = 1_000;
const SLOW_FETCHES = 16;

/** Something that was fetched with others. */
interface Fetched {
  readonly supply: Supplies[ContentsNeed["type"] | "directory"];
  /** What contents are in, with others. Default: they have it alone. */
  readonly memory?: Uint8Array | undefined;
}

type FolderNeed = Need & { type: "directory" };
/** @param memory what contents are in: it can be freed once they are copied */
type OnAnswer = (answers: readonly Answer[], memory?: readonly Uint8Array[]) => void;

/** Fetches what a file system needs from the stores. */
export class StoreSource implements AsyncDisposable {
  readonly #services: MountedServices;
  readonly #names: StoreSourceOptions["storeNames"];
  readonly #patience: Patience;
  readonly #timeoutMs: number;
  readonly #diskCache: DiskCache | undefined;
  readonly #onError: StoreSourceOptions["onError"];
  readonly #fetches = new Map<string, PendingFetch>();
  readonly #readers = new LRUCache<string, BlobReader>({
    max: MAX_READERS,
    dispose: (reader) => void reader[Symbol.asyncDispose](),
  });
  readonly #opening = new SingleFlight<BlobReader>();

  constructor(services: MountedServices, options: StoreSourceOptions) {
    this.#services = services;
    this.#names = options.storeNames;
    this.#patience = new Patience(options.onOutage);
    this.#timeoutMs = options.timeoutMs;
    this.#diskCache = options.diskCache;
    this.#onError = options.onError;
  }

  /** Fetches what is needed. Calls back once for each need, in any order, unless it is cancelled. */
  fetch(needs: readonly Need[], onAnswer: OnAnswer): void {
    let batch: ContentsNeed[] = [];
    let bytes = 0;
    const fetchBatch = () => {
      if (batch.length > 0) void this.#fetchMany(batch, onAnswer);
      [batch, bytes] = [[], 0];
    };
    const folders = needs.filter((need) => need.type === "directory");
    if (folders.length > 1) void this.#fetchFolders(folders, onAnswer);
    for (const need of needs) {
      if (need.type === "directory" && folders.length > 1) continue;
      const isContents = need.type === "file" || need.type === "chunk";
      if (!isContents || need.asContents) {
        void this.#run(need, onAnswer);
        continue;
      }
      batch.push(need);
      bytes += lengthOf(need);
      if (bytes >= BATCH_BYTES) fetchBatch();
    }
    fetchBatch();
  }

  /** Ends fetching, by the keys of needs. Nothing is called back for them. */
  cancel(keys: readonly string[]): void {
    for (const key of keys) {
      this.#fetches.get(key)?.drop(key);
      this.#fetches.delete(key);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel([...this.#fetches.keys()]);
    this.#readers.clear();
  }

  /** Fetches something by itself. */
  async #run(need: Need, onAnswer: OnAnswer, untilMs?: number): Promise<void> {
    const { key } = need;
    const fetch = this.#begin([need], untilMs);
    const outcome = await this.#attempt(need, fetch.signal, () => fetch.wants(key));
    if (fetch.wants(key)) this.#end(fetch, [outcome], onAnswer);
  }

  async #attempt(need: Need, signal: AbortSignal, isWanted: () => boolean): Promise<Answer> {
    const { key } = need;
    try {
      const run = (signal: AbortSignal) => this.#fetchOne(need, signal);
      return { key, supply: await this.#patience.with(run, signal) };
    } catch (error) {
      return { key, errno: isWanted() ? this.#tell(error) : ERRNO.EINTR };
    }
  }

  async #fetchOne(need: Need, signal: AbortSignal): Promise<Supplies[Need["type"]]> {
    switch (need.type) {
      case "path":
        return await this.#path(need.baseName, signal);
      case "page":
        return await this.#page(need.after, signal);
      case "directory":
        return await this.#directory(digestOf(need.digest), signal);
      case "list":
        return await this.#list(need, signal);
      case "chunk": {
        const reader = await this.#reader(need.digest, signal);
        return verified(await reader.read(need.offset, need.length, { signal }));
      }
      case "file":
        return await this.#smallFile(need, signal);
    }
  }

  async #path(baseName: string, signal: AbortSignal): Promise<PackedBytes | undefined> {
    const storePath = storePathOf(baseName);
    if (storePath === undefined) return undefined;
    const { hashPart, name } = storePath;
    const pathInfo = await this.#services.pathInfoService.get(hashPart, { signal });
    if (pathInfo === undefined || pathInfo.storePath.name !== name) return undefined;
    return packPaths([pathInfo]);
  }

  async #page(after: Uint8Array | undefined, signal: AbortSignal): Promise<RootPage> {
    const found: PathInfo[] = [];
    let isLast = true;
    for await (const pathInfo of this.#services.pathInfoService.list({ after, signal })) {
      isLast = found.length < PAGE_PATHS;
      if (!isLast) break;
      found.push(pathInfo);
    }
    const next = isLast ? undefined : Uint8Array.from(found.at(-1)!.storePath.hashPart);
    return { entries: packPaths(found), next };
  }

  async #directory(digest: B3Digest, signal: AbortSignal): Promise<PackedBytes> {
    const directory = await this.#services.directoryService.get(digest, { signal });
    if (directory !== undefined) return packDirectory(directory);
    throw damage(
      `Cannot read directory ${digest}: expected it in the directory service, found none that is whole`,
      this.#names.directories,
    );
  }

  async #list(need: Need & { type: "list" }, signal: AbortSignal): Promise<Uint8Array> {
    const { chunks, size } = await this.#reader(need.digest, signal);
    if (size === need.size) return Uint8Array.from(chunks.bytes);
    throw this.#wrongSize(need, size);
  }

  async #smallFile(need: Need & { type: "file" }, signal: AbortSignal): Promise<Held> {
    const reader = await this.#reader(need.digest, signal);
    if (reader.size !== need.size) throw this.#wrongSize(need, reader.size);
    return verified(await reader.read(0, need.size, { signal }));
  }

  /** Fetches directories together. */
  #fetchFolders(needs: readonly FolderNeed[], onAnswer: OnAnswer): Promise<void> {
    const digests = needs.map(({ digest }) => digestOf(digest));
    const getMany = async (signal: AbortSignal) => {
      const found = await this.#services.directoryService.getMany(digests, { signal });
      return found.map((directory) => directory && { supply: packDirectory(directory) });
    };
    return this.#fetchTogether(needs, getMany, onAnswer);
  }

  /** Fetches contents together. */
  #fetchMany(needs: readonly ContentsNeed[], onAnswer: OnAnswer): Promise<void> {
    const wanted = needs.map((need) => ({
      digest: digestOf(need.type === "chunk" ? need.chunk : need.digest),
      size: lengthOf(need),
    }));
    return this.#fetchTogether(needs, (signal) => this.#readMany(wanted, signal), onAnswer);
  }

  /** Fetches by one call, and one by one what is not found so, to learn why. */
  async #fetchTogether(
    needs: readonly Need[],
    read: (signal: AbortSignal) => Promise<readonly (Fetched | undefined)[]>,
    onAnswer: OnAnswer,
  ): Promise<void> {
    const fetch = this.#begin(needs);
    const { signal, untilMs } = fetch;
    const done = new AbortController();
    const fetchEach = () => void this.#fetchEach(needs, fetch, done.signal, onAnswer);
    const slow = needs.length > 1 ? setTimeout(fetchEach, SLOW_MS) : undefined;
    const found = await unlessAborted(read(signal), signal).catch(() => []);
    clearTimeout(slow);
    done.abort();
    const wanted = needs.filter(({ key }) => fetch.wants(key));
    const answers: Answer[] = [];
    const memories = new Set<Uint8Array>();
    if (signal.aborted && wanted.length > 0) {
      const errno = this.#tell(signal.reason); // it took too long
      answers.push(...wanted.map(({ key }) => ({ key, errno })));
    } else {
      for (const [i, need] of needs.entries()) {
        if (!fetch.wants(need.key)) continue;
        const one = found[i];
        if (one === undefined) {
          void this.#run(need, onAnswer, untilMs);
          continue;
        }
        answers.push({ key: need.key, supply: one.supply });
        if (one.memory !== undefined) memories.add(one.memory);
      }
    }
    this.#end(fetch, answers, onAnswer, [...memories]);
  }

  /** Fetches one by one what is being fetched together. */
  async #fetchEach(
    needs: readonly Need[],
    fetch: PendingFetch,
    done: AbortSignal,
    onAnswer: OnAnswer,
  ): Promise<void> {
    const signal = AbortSignal.any([fetch.signal, done]);
    const left = [...needs].reverse();
    const fetchNext = async () => {
      for (let need = left.pop(); need !== undefined; need = left.pop()) {
        const { key } = need;
        const isWanted = () => !signal.aborted && fetch.wants(key);
        if (!isWanted()) continue;
        const answer = await this.#attempt(need, signal, isWanted);
        if (!isWanted()) continue;
        this.cancel([key]); // together with the others
        onAnswer([answer]);
      }
    };
    await Promise.all(Array.from({ length: SLOW_FETCHES }, fetchNext));
  }

  /** Notes a fetch that begins, so that it can be ended. */
  #begin(needs: readonly Need[], untilMs?: number): PendingFetch {
    const keys = needs.map(({ key }) => key);
    const fetch = new PendingFetch(keys, { timeoutMs: this.#timeoutMs, untilMs });
    for (const key of keys) this.#fetches.set(key, fetch);
    return fetch;
  }

  #end(
    fetch: PendingFetch,
    answers: readonly Answer[],
    onAnswer: OnAnswer,
    memory?: readonly Uint8Array[],
  ): void {
    fetch.end();
    for (const { key } of answers) this.#fetches.delete(key);
    if (answers.length > 0) onAnswer(answers, memory);
  }

  /** Reads contents from the disk cache, or else from the store; none of those of a batch that the store fails. */
  async #readMany(
    wanted: readonly ChunkMeta[],
    signal: AbortSignal,
  ): Promise<readonly (Fetched | undefined)[]> {
    const { blobService } = this.#services;
    if (this.#diskCache === undefined && blobService.readManyStored !== undefined) {
      const found = await blobService.readManyStored(wanted, { signal });
      return found.map((stored) => {
        if (stored === undefined) return undefined;
        const { memory } = stored;
        if ("frame" in stored) return { supply: { bytes: stored.frame, form: "frame" }, memory };
        return { supply: { bytes: stored.contents, form: "stored" }, memory };
      });
    }
    const found = await this.#readVerified(wanted, signal);
    return found.map((bytes) => bytes && { supply: verified(bytes) });
  }

  async #readVerified(
    wanted: readonly ChunkMeta[],
    signal: AbortSignal,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const cache = this.#diskCache;
    const readMany = (missing: readonly ChunkMeta[]) =>
      this.#services.blobService.readMany(missing, { signal }).catch(() => []);
    if (cache === undefined) return await readMany(wanted);
    const kept = await Promise.all(wanted.map(({ digest, size }) => cache.get(digest, size)));
    const read = await mapSome(
      wanted,
      (one, i) => (kept[i] === undefined ? one : undefined),
      readMany,
    );
    cache.put(wanted.flatMap(({ digest }, i) => (read[i] ? [{ digest, contents: read[i] }] : [])));
    return kept.map((contents, i) => contents ?? read[i]);
  }

  /** Returns the reader of a blob, which is kept open for the next reads. */
  async #reader(digest: string, signal: AbortSignal): Promise<BlobReader> {
    const kept = this.#readers.get(digest);
    if (kept !== undefined) return kept;
    return await this.#opening.run(digest, (signal) => this.#open(digest, signal), { signal });
  }

  async #open(key: string, signal: AbortSignal): Promise<BlobReader> {
    const digest = digestOf(key);
    const reader = await this.#services.blobService.open(digest, { signal });
    if (reader !== undefined) {
      this.#readers.set(key, reader);
      return reader;
    }
    throw damage(
      `Cannot read blob ${digest}: expected it in the blob service, found none that is whole`,
      this.#names.blobs,
    );
  }

  #wrongSize(need: { digest: string; size: number }, found: number): CastoreError {
    return damage(
      `Cannot read blob ${digestOf(need.digest)}: expected ${need.size} bytes, as its directory states, found ${found}`,
      this.#names.blobs,
    );
  }

  #tell(error: unknown): number {
    const failure =
      error instanceof CastoreError
        ? error
        : new CastoreError("internal", String((error as Error)?.stack ?? error), { cause: error });
    const errno = errnoOf(failure);
    this.#onError(failure, errno);
    return errno;
  }
}

/** Returns the store path of a name; `undefined` for one that cannot be that of any. */
function storePathOf(baseName: string): StorePath | undefined {
  try {
    return StorePath.parse(baseName);
  } catch (error) {
    if (hasCode(error, "invalid_argument")) return undefined;
    throw error;
  }
}

function errnoOf({ code }: CastoreError): number {
  if (code === "unavailable") return ERRNO.ETIMEDOUT; // only after the time limit
  return code === "permission_denied" ? ERRNO.EACCES : ERRNO.EIO;
}

/** Packs store paths as the entries of a directory. */
function packPaths(pathInfos: readonly PathInfo[]): PackedBytes {
  const entries = pathInfos.map(({ storePath, node }) => {
    return { name: pathComponent(storePath.toString()), node };
  });
  return packDirectory(Directory.from(entries));
}

function verified(bytes: Uint8Array): Held {
  return { bytes, form: "verified" };
}

function digestOf(text: string): B3Digest {
  return B3Digest.fromBytes(Uint8Array.from(Buffer.from(text, "latin1")));
}

function damage(message: string, store: string): CastoreError {
  const error = new CastoreError("data_loss", message);
  error.store = store;
  return error;
}
