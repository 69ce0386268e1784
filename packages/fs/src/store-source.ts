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
import { Patience, type PatienceOptions } from "./patience.ts";
import { ERRNO } from "./protocol/constants.ts";

/** The services that a file system shows. */
export interface MountedServices {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
}

/** Options of {@link StoreSource}. */
export interface StoreSourceOptions extends PatienceOptions {
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

/** Contents that were fetched with others. */
interface Contents {
  readonly supply: Held;
  /** What they are in, with others of the same batch. Default: they have it alone. */
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
  readonly #diskCache: DiskCache | undefined;
  readonly #onError: StoreSourceOptions["onError"];
  readonly #fetches = new Map<string, AbortController>();
  readonly #readers = new LRUCache<string, BlobReader>({
    max: MAX_READERS,
    dispose: (reader) => void reader[Symbol.asyncDispose](),
  });
  readonly #opening = new SingleFlight<BlobReader>();

  constructor(services: MountedServices, options: StoreSourceOptions) {
    this.#services = services;
    this.#names = options.storeNames;
    this.#patience = new Patience(options);
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
      this.#fetches.get(key)?.abort(new DOMException("interrupted", "AbortError"));
      this.#fetches.delete(key);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel([...this.#fetches.keys()]);
    this.#readers.clear();
  }

  /** Fetches something by itself. */
  async #run(need: Need, onAnswer: OnAnswer): Promise<void> {
    const { key } = need;
    const abort = new AbortController();
    this.#fetches.set(key, abort);
    const outcome = await this.#attempt(need, abort.signal);
    if (abort.signal.aborted) return;
    this.#fetches.delete(key);
    onAnswer([outcome]);
  }

  async #attempt(need: Need, signal: AbortSignal): Promise<Answer> {
    const { key } = need;
    try {
      const fetch = (signal: AbortSignal) => this.#fetchOne(need, signal);
      return { key, supply: await this.#patience.with(fetch, signal) };
    } catch (error) {
      return { key, errno: signal.aborted ? ERRNO.EINTR : this.#tell(error) };
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

  /** Fetches directories together, and those one by one that are not found so, to learn why. */
  async #fetchFolders(needs: readonly FolderNeed[], onAnswer: OnAnswer): Promise<void> {
    const aborts = this.#begin(needs);
    const digests = needs.map(({ digest }) => digestOf(digest));
    const found = await this.#services.directoryService.getMany(digests).catch(() => []);
    const answers: Answer[] = [];
    for (const [i, need] of needs.entries()) {
      if (aborts[i]!.signal.aborted) continue;
      const directory = found[i];
      if (directory === undefined) {
        void this.#run(need, onAnswer);
        continue;
      }
      this.#fetches.delete(need.key);
      answers.push({ key: need.key, supply: packDirectory(directory) });
    }
    if (answers.length > 0) onAnswer(answers);
  }

  /** Notes fetches that begin, so that they can be ended. */
  #begin(needs: readonly Need[]): readonly AbortController[] {
    return needs.map(({ key }) => {
      const abort = new AbortController();
      this.#fetches.set(key, abort);
      return abort;
    });
  }

  /** Fetches contents together, and those one by one that are not found so, to learn why. */
  async #fetchMany(needs: readonly ContentsNeed[], onAnswer: OnAnswer): Promise<void> {
    const aborts = this.#begin(needs);
    const wanted = needs.map((need) => ({
      digest: digestOf(need.type === "chunk" ? need.chunk : need.digest),
      size: lengthOf(need),
    }));
    const found = await this.#readMany(wanted);
    const answers: Answer[] = [];
    const memories = new Set<Uint8Array>();
    for (const [i, need] of needs.entries()) {
      if (aborts[i]!.signal.aborted) continue;
      const contents = found[i];
      if (contents === undefined) {
        void this.#run(need, onAnswer);
        continue;
      }
      this.#fetches.delete(need.key);
      const { supply, memory } = contents;
      answers.push({ key: need.key, supply });
      if (memory !== undefined) memories.add(memory);
    }
    if (answers.length > 0) onAnswer(answers, [...memories]);
  }

  /** Reads contents from the disk cache, or else from the store; none of those of a batch that the store fails. */
  async #readMany(wanted: readonly ChunkMeta[]): Promise<readonly (Contents | undefined)[]> {
    const { blobService } = this.#services;
    if (this.#diskCache === undefined && blobService.readManyStored !== undefined) {
      const found = await blobService.readManyStored(wanted).catch(() => []);
      return found.map((stored) => {
        if (stored === undefined) return undefined;
        const { memory } = stored;
        if ("frame" in stored) return { supply: { bytes: stored.frame, form: "frame" }, memory };
        return { supply: { bytes: stored.contents, form: "stored" }, memory };
      });
    }
    const found = await this.#readVerified(wanted);
    return found.map((bytes) => bytes && { supply: verified(bytes) });
  }

  async #readVerified(wanted: readonly ChunkMeta[]): Promise<readonly (Uint8Array | undefined)[]> {
    const cache = this.#diskCache;
    const readMany = (missing: readonly ChunkMeta[]) =>
      this.#services.blobService.readMany(missing).catch(() => []);
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
