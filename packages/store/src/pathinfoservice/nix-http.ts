import {
  type AbortOptions,
  type BlobService,
  CastoreError,
  COMPRESSIONS,
  type Compression,
  collectAtMost,
  type DirectoryService,
  decompress,
  mapInParallel,
  type Node,
  SingleFlight,
} from "@tvix/castore";
import { quoteText, StoreError } from "../errors.ts";
import { ingestNar } from "../nar/ingest.ts";
import { pathInfoFromNarInfo } from "../narinfo-convert.ts";
import { buildCaPath } from "../nix/build-path.ts";
import { NarInfo } from "../nix/narinfo.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { fingerprint, type VerifyingKey } from "../nix/signature.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { BinaryCacheClient } from "./binary-cache-client.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** Options of {@link NixHttpPathInfoService}. */
export interface NixHttpOptions {
  /** URL of the cache, of `http:` or `https:`. */
  baseUrl: string;
  /** Store the contents. Not disposed of with the service. */
  blobService: BlobService;
  directoryService: DirectoryService;
  /**
   * Keys of which one has to have signed each narinfo, unless its path is content-addressed. With an empty list nobody
   * is trusted. Default: narinfos need no signature.
   */
  publicKeys?: readonly VerifyingKey[] | undefined;
  /** How long the server may be silent, in milliseconds. Default: 15,000. */
  timeoutMs?: number | undefined;
  /** How long the circuit breaker of a host stays open at first, in milliseconds. Default: 5,000. */
  restMs?: number | undefined;
  /** Path of a file with an access token, which is sent to the server itself and to no other. Default: none. */
  tokenFile?: string | undefined;
}

const TIMEOUT_MS = 15_000;
const REST_MS = 5_000;

/** How many store paths of one batch are fetched at the same time. */
const CONCURRENCY = 8;

/** How many bytes a narinfo may have. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/**
 * Reads PathInfos from a binary cache of Nix, such as https://cache.nixos.org. A `get` also stores the contents.
 * Concurrent calls for one store path share one download, which is cancelled when all of them are. PathInfos are not
 * stored: that is for a cache in front of this service.
 *
 * Narinfos are verified by their signatures, NARs by hash and size; as in Nix, hash and size of the compressed file are
 * not checked. None of the directories of a wrong NAR is visible, though blobs may be stored. Failed requests are
 * retried a few times, and each host has a circuit breaker, see {@link UpstreamHost}.
 *
 * `get` throws StoreError `unavailable` if the retries fail or the circuit breaker is open; `permission_denied` for a
 * narinfo that no trusted key has signed; `data_loss` for a wrong narinfo or NAR; `not_found` for a missing NAR;
 * `unimplemented` for an unknown compression. `put` and listing throw `unimplemented`.
 */
export class NixHttpPathInfoService implements PathInfoService {
  readonly #name: string;
  readonly #client: BinaryCacheClient;
  readonly #services: { blobService: BlobService; directoryService: DirectoryService };
  readonly #publicKeys: readonly VerifyingKey[] | undefined;
  readonly #running = new SingleFlight<PathInfo | undefined>();

  /** @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP */
  constructor(options: NixHttpOptions) {
    const { baseUrl, blobService, directoryService, publicKeys } = options;
    const { timeoutMs = TIMEOUT_MS, restMs = REST_MS, tokenFile } = options;
    this.#name = baseUrl.replace(/\/*$/, "/");
    this.#client = new BinaryCacheClient(this.#name, { timeoutMs, restMs, tokenFile });
    this.#services = { blobService, directoryService };
    this.#publicKeys = publicKeys;
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    expectHashPart(hashPart);
    const hash = encodeNixbase32(hashPart);
    return await this.#running.run(hash, (signal) => this.#get(hash, signal), options);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    hashParts.forEach(expectHashPart);
    const get = (hashPart: Uint8Array, options: AbortOptions) => this.get(hashPart, options);
    return await mapInParallel(hashParts, CONCURRENCY, get, options);
  }

  async put(): Promise<PathInfo> {
    throw this.#refusal("unimplemented", "put to", "binary caches are read-only");
  }

  list(): AsyncGenerator<never> {
    return this.listPages();
  }

  // biome-ignore lint/correctness/useYield: it only throws
  async *listPages(): AsyncGenerator<never> {
    throw this.#refusal("unimplemented", "list", "binary caches cannot be listed");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  async #get(hash: string, signal: AbortSignal): Promise<PathInfo | undefined> {
    try {
      const narInfo = await this.#getNarInfo(hash, signal);
      if (narInfo === undefined) return undefined;
      if (encodeNixbase32(narInfo.storePath.hashPart) !== hash) {
        throw new StoreError("data_loss", `the narinfo is that of "${narInfo.storePath}"`);
      }
      this.#expectTrusted(narInfo);
      return pathInfoFromNarInfo(narInfo, await this.#ingest(narInfo, signal));
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof CastoreError)) throw error;
      // The caller's argument is valid: the response of the cache is not.
      const code = error.code === "invalid_argument" ? "data_loss" : error.code;
      throw this.#refusal(code, `get "${hash}" from`, error.message, error);
    }
  }

  async #getNarInfo(hash: string, signal: AbortSignal): Promise<NarInfo | undefined> {
    const read = async (contents: AsyncIterable<Uint8Array>) => {
      const bytes = await collectAtMost(contents, MAX_NARINFO_BYTES);
      if (bytes !== undefined) return NarInfo.parse(Buffer.from(bytes).toString());
      const reason = `expected a narinfo of at most ${MAX_NARINFO_BYTES} bytes, found more`;
      throw new StoreError("data_loss", reason);
    };
    return await this.#client.get(`${hash}.narinfo`, read, { signal });
  }

  #expectTrusted(narInfo: NarInfo): void {
    const keys = this.#publicKeys;
    if (keys === undefined || isContentAddressed(narInfo)) return;
    const text = fingerprint(narInfo);
    const isGood = narInfo.signatures.some((one) => keys.some((key) => key.verify(text, one)));
    if (isGood) return;
    const names = (named: readonly { name: string }[]) =>
      named.map(({ name }) => quoteText(name)).join(", ");
    const trusted = names(keys) || "a trusted key, of which there are none";
    const expected = `expected "${narInfo.storePath}" to be signed by ${trusted}`;
    const found = names(narInfo.signatures) || "no signature";
    throw new StoreError("permission_denied", `${expected}, found ${found}`);
  }

  /** Stores the contents, whatever is stored of them already. */
  async #ingest(narInfo: NarInfo, signal: AbortSignal): Promise<Node> {
    const { url, compression = "bzip2", narSize, narSha256, ca } = narInfo;
    if (compression !== "none" && !isCompression(compression)) {
      const known = ["none", ...COMPRESSIONS].join(", ");
      const reason = `expected one of ${known}, found ${quoteText(compression)}`;
      throw new StoreError("unimplemented", `Cannot decompress ${quoteText(url)}: ${reason}`);
    }
    const read = async (file: AsyncIterable<Uint8Array>) => {
      const nar =
        compression === "none"
          ? file
          : decompress(file, compression, { signal, name: quoteText(url) });
      return await ingestNar(expectAtMost(nar, narSize), this.#services, {
        signal,
        expected: { narSize, narSha256 },
        // The content address of a path that refers to itself covers its NAR with those references removed.
        expectedCa: refersToItself(narInfo) ? undefined : ca,
      });
    };
    const ingested = await this.#client.get(url, read, { signal });
    if (ingested !== undefined) return ingested.node;
    throw new StoreError("not_found", `Cannot get ${quoteText(url)}: there is no such file`);
  }

  #refusal(code: CastoreError["code"], action: string, reason: string, cause?: unknown) {
    return new StoreError(code, `Cannot ${action} ${this.#name}: ${reason}`, { cause });
  }
}

function isCompression(name: string): name is Compression {
  return (COMPRESSIONS as readonly string[]).includes(name);
}

function refersToItself({ storePath, references }: NarInfo): boolean {
  return references.some((reference) => `${reference}` === `${storePath}`);
}

/** Returns whether a store path follows from its contents, so that it needs no signature. */
function isContentAddressed(narInfo: NarInfo): boolean {
  const { storePath, references, ca } = narInfo;
  if (ca === undefined || refersToItself(narInfo)) return false;
  try {
    const absolute = references.map((reference) => reference.toAbsolutePath());
    return `${buildCaPath(storePath.name, ca, { references: absolute })}` === `${storePath}`;
  } catch (error) {
    if (error instanceof StoreError && error.code === "invalid_argument") return false;
    throw error;
  }
}

/** Passes a NAR on, and throws when it exceeds its size: a few compressed bytes may decompress to gigabytes. */
async function* expectAtMost(
  nar: AsyncIterable<Uint8Array>,
  narSize: bigint,
): AsyncGenerator<Uint8Array> {
  let size = 0n;
  for await (const data of nar) {
    size += BigInt(data.length);
    if (size > narSize) {
      throw new StoreError("data_loss", `expected a NAR of ${narSize} bytes, found more`);
    }
    yield data;
  }
}
