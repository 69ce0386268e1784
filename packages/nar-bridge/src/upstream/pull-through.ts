import { AsyncResource } from "node:async_hooks";
import {
  type BlobService,
  ByteBudget,
  type DirectoryService,
  equalBytes,
  hasCode,
  type Node,
} from "@tvix/castore";
import {
  decodeNixbase32,
  encodeNixbase32,
  NarInfo,
  type PathInfo,
  type PathInfoService,
  StoreError,
} from "@tvix/store";
import type { ByteRange, Content, Exchange } from "../exchange.ts";
import { isLost, NAR_HEADERS, type StoredNars } from "../stored-nars.ts";
import { Pull, type ReadStored, type Watch } from "./pull.ts";
import type { SpoolSpace } from "./spool.ts";
import type { Upstreams } from "./upstreams.ts";

/** Options of {@link PullThrough}. */
export interface PullThroughOptions {
  upstreams: Upstreams;
  blobService: BlobService;
  directoryService: DirectoryService;
  pathInfoService: PathInfoService;
  nars: StoredNars;
  /** How many NARs are downloaded at the same time. Default: 16. */
  maxDownloads?: number | undefined;
  /** How many bytes of NARs that are being downloaded are kept in temporary files. Default: 4 GiB. */
  spoolBytes?: number | undefined;
}

const MAX_DOWNLOADS = 16;
const SPOOL_BYTES = 4 * 1024 ** 3;

/** A narinfo or a PathInfo. */
type HasNarHash = Pick<NarInfo, "narSha256">;

/** Serves store paths of other binary caches, and stores those whose NAR is asked for. */
export class PullThrough implements AsyncDisposable {
  readonly #options: PullThroughOptions;
  readonly #space: SpoolSpace;
  readonly #downloads: ByteBudget;
  /** By hash part and NAR hash. */
  readonly #pulls = new Map<string, Pull>();
  /** A download belongs to no request: what one may do does not count for it. */
  readonly #scope = new AsyncResource("PullThrough");

  constructor(options: PullThroughOptions) {
    const { maxDownloads = MAX_DOWNLOADS, spoolBytes = SPOOL_BYTES } = options;
    this.#options = options;
    this.#space = { free: spoolBytes };
    this.#downloads = new ByteBudget(maxDownloads);
  }

  /**
   * Returns the narinfo of a store path, which names its NAR as this cache serves it: uncompressed, as it is known and
   * verified by its hash, and can be rendered again.
   *
   * @param hash the hash part in nixbase32
   * @returns `undefined` if no upstream has it
   * @throws StoreError `unavailable` if an upstream that may have it failed
   */
  async narInfo(hash: string, signal: AbortSignal): Promise<NarInfo | undefined> {
    const found = await this.#options.upstreams.find(hash, signal);
    if (found === undefined) return undefined;
    const { narSha256, narSize } = found.narInfo;
    const { storePath, references, deriver, system, signatures, ca, unknown } = found.narInfo;
    return NarInfo.from({
      ...{ storePath, references, deriver, system, signatures, ca, unknown, narSha256, narSize },
      url: `nar/${encodeNixbase32(narSha256)}.nar?hash=${hash}`,
      compression: "none",
      fileHash: { algorithm: "sha256", digest: narSha256 },
      fileSize: narSize,
    });
  }

  /**
   * Answers with the NAR of a store path of an upstream. `GET` downloads and stores it; all who ask for it at the same time
   * share one download.
   *
   * @param narHash hash of the NAR in nixbase32, as its narinfo names it
   * @returns whether an upstream has it; nothing is answered otherwise
   */
  async send(exchange: Exchange, hash: string, narHash: string): Promise<boolean> {
    const { signal } = exchange;
    const found = await this.#find(hash, narHash, signal);
    if (found === undefined) return false;
    const { size } = found;
    if (exchange.method === "HEAD") {
      await exchange.sendContent(contentOf(narHash, size, () => (async function* () {})()));
      return true;
    }
    const pull = found.start();
    using _reader = pull.join();
    await pull.begun(signal);
    const read: ReadStored = (range, signal) => pull.read(range, signal);
    await exchange.sendContent(contentOf(narHash, size, read));
    return true;
  }

  /**
   * Downloads and stores a store path of an upstream again, the contents of which are lost here; once for all who ask for it
   * at the same time.
   *
   * @param narHash hash of its NAR in nixbase32
   * @returns whether an upstream has it
   * @throws StoreError `data_loss` if none has it as it should be, `unavailable` if one failed
   */
  async restore(hash: string, narHash: string, signal: AbortSignal): Promise<boolean> {
    const found = await this.#find(hash, narHash, signal);
    if (found === undefined) return false;
    const pull = found.start();
    using _reader = pull.join();
    await pull.stored(signal);
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const pulls = [...this.#pulls.values()];
    for (const pull of pulls) pull.abandon();
    await Promise.all(pulls.map(({ ended }) => ended));
    await this.#options.upstreams[Symbol.asyncDispose]();
  }

  /**
   * Looks for a store path that is being downloaded, or that an upstream has.
   *
   * @returns the length of its NAR, and what starts the download unless another request has; `undefined` if there is none
   */
  async #find(
    hash: string,
    narHash: string,
    signal: AbortSignal,
  ): Promise<{ readonly size: number; readonly start: () => Pull } | undefined> {
    const narSha256 = decodeNixbase32(narHash);
    const key = `${hash} ${narHash}`;
    const isWanted = (one: HasNarHash) => equalBytes(one.narSha256, narSha256);
    const size = this.#running(key)?.size ?? (await this.#sizeOf(hash, isWanted, signal));
    if (size === undefined) return undefined;
    const start = () => this.#running(key) ?? this.#start(key, size, hash, isWanted);
    return { size, start };
  }

  async #sizeOf(
    hash: string,
    isWanted: (one: HasNarHash) => boolean,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { upstreams } = this.#options;
    for await (const { narInfo } of upstreams.having(hash, isWanted, signal)) {
      return Number(narInfo.narSize);
    }
    return undefined;
  }

  #running(key: string): Pull | undefined {
    const pull = this.#pulls.get(key);
    return pull?.isAbandoned ? undefined : pull;
  }

  #start(key: string, size: number, hash: string, isWanted: (one: HasNarHash) => boolean): Pull {
    return this.#scope.runInAsyncScope(() => {
      const pull = new Pull(size, this.#space, async (watch, signal): Promise<ReadStored> => {
        await this.#downloads.take(1, { signal });
        try {
          const { node } = await this.#store(hash, isWanted, watch, signal);
          return (range, signal) => readStored(this.#options.nars, node, range, signal);
        } finally {
          this.#downloads.release(1);
        }
      });
      this.#pulls.set(key, pull);
      const remove = () => {
        if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
      };
      void pull.ended.then(remove);
      return pull;
    });
  }

  async #isWhole({ node }: PathInfo, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#options.nars.open(node, signal);
      return true;
    } catch (error) {
      if (isLost(error)) return false;
      throw error;
    }
  }

  /** Downloads and stores a store path from the first upstream that has its NAR as it should be. */
  async #store(
    hash: string,
    isWanted: (one: HasNarHash) => boolean,
    watch: Watch,
    signal: AbortSignal,
  ): Promise<PathInfo> {
    const { upstreams, pathInfoService, blobService, directoryService } = this.#options;
    const stored = await pathInfoService.get(decodeNixbase32(hash), { signal });
    // Another download may have ended meanwhile, or what is here be lost.
    if (stored && isWanted(stored) && (await this.#isWhole(stored, signal))) return stored;
    const services = { blobService, directoryService };
    let failure: unknown = new StoreError("not_found", `No upstream has the NAR of ${hash}`);
    for await (const found of upstreams.having(hash, isWanted, signal)) {
      let pathInfo: PathInfo;
      try {
        pathInfo = await found.cache.store(found.narInfo, services, { signal, watch });
      } catch (error) {
        signal.throwIfAborted();
        if (hasCode(error, "aborted")) throw error; // what was sent already may be wrong
        upstreams.reject(found, error);
        failure = error;
        continue;
      }
      return await pathInfoService.put(pathInfo, { signal });
    }
    throw failure;
  }
}

async function* readStored(
  nars: StoredNars,
  node: Node,
  range: ByteRange,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { read } = await nars.open(node, signal);
  yield* read(range, signal);
}

function contentOf(narHash: string, size: number, read: ReadStored): Content {
  return { size, etag: `"${narHash}"`, headers: NAR_HEADERS, read };
}
