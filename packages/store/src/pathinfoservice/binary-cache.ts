import {
  type AbortOptions,
  type BlobService,
  CastoreError,
  COMPRESSIONS,
  type Compression,
  collectAtMost,
  type DirectoryService,
  decompress,
} from "@tvix/castore";
import { quoteText, StoreError } from "../errors.ts";
import { ingestNar } from "../nar/ingest.ts";
import { pathInfoFromNarInfo } from "../narinfo-convert.ts";
import { buildCaPath } from "../nix/build-path.ts";
import { NarInfo } from "../nix/narinfo.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { fingerprint, type VerifyingKey } from "../nix/signature.ts";
import type { PathInfo } from "../pathinfo.ts";
import { BinaryCacheClient, type RequestLimits } from "./binary-cache-client.ts";

/** Options of {@link BinaryCache}. */
export interface BinaryCacheOptions {
  /** URL of the cache, of `http:` or `https:`. */
  baseUrl: string;
  /**
   * Keys of which one has to have signed each narinfo, unless its path is content-addressed. With an empty list nobody
   * is trusted. Default: narinfos need no signature.
   */
  publicKeys?: readonly VerifyingKey[] | undefined;
  /** How long the server may be silent, in milliseconds. Default: 15,000. */
  timeoutMs?: number | undefined;
  /** Limits of a request for a narinfo, also to how long a connection may take. Default: those of any request. */
  narInfoLimits?: RequestLimits | undefined;
  /** How long the circuit breaker of a host stays open at first, in milliseconds. Default: 5,000. */
  restMs?: number | undefined;
  /**
   * Whether a request that finds a circuit breaker open fails at once, also when it is time to test the host, which is
   * then done in the background. Default: false, the request is the test.
   */
  testsInBackground?: boolean | undefined;
  /** Path of a file with an access token, which is sent to the server itself and to no other. Default: none. */
  tokenFile?: string | undefined;
}

const TIMEOUT_MS = 15_000;
const REST_MS = 5_000;

/** How long a connection may take at most, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How many bytes a narinfo may have. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/** Options of {@link BinaryCache.store}. */
export interface StoreNarOptions extends AbortOptions {
  /**
   * Is passed the bytes of the NAR on their way to the services, and passes them on. It is called anew, from the first
   * byte on, when a download is retried. Default: nobody watches.
   */
  watch?: ((nar: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>) | undefined;
}

/**
 * A binary cache of Nix, such as https://cache.nixos.org, that is read over HTTP.
 *
 * Narinfos are verified by their signatures, NARs by hash and size; as in Nix, hash and size of the compressed file are
 * not checked. Failed requests are retried a few times, and each host has a circuit breaker, see {@link UpstreamHost}.
 *
 * All methods throw StoreError `unavailable` if the retries fail or the circuit breaker is open, `data_loss` for a
 * response that is wrong.
 */
export class BinaryCache implements AsyncDisposable {
  /** URL of the cache, with a slash at its end. */
  readonly name: string;
  readonly #client: BinaryCacheClient;
  readonly #publicKeys: readonly VerifyingKey[] | undefined;
  readonly #narInfoLimits: RequestLimits;

  /** @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP */
  constructor(options: BinaryCacheOptions) {
    const { baseUrl, publicKeys, timeoutMs = TIMEOUT_MS, restMs = REST_MS } = options;
    const { narInfoLimits = {}, testsInBackground = false, tokenFile } = options;
    this.name = baseUrl.replace(/\/*$/, "/");
    const connectTimeoutMs = Math.min(
      CONNECT_TIMEOUT_MS,
      timeoutMs,
      narInfoLimits.timeoutMs ?? Number.POSITIVE_INFINITY,
    );
    const hostOptions = { connectTimeoutMs, timeoutMs, restMs, testsInBackground };
    this.#client = new BinaryCacheClient(this.name, { ...hostOptions, tokenFile });
    this.#publicKeys = publicKeys;
    this.#narInfoLimits = narInfoLimits;
  }

  /** Whether the circuit breaker of the cache's own host is open. */
  get isDown(): boolean {
    return this.#client.isDown;
  }

  /**
   * Gets the narinfo of a store path, and verifies it.
   *
   * @param hash the hash part in nixbase32
   * @returns `undefined` if the cache does not have it
   * @throws StoreError `permission_denied` for a narinfo that no trusted key has signed
   */
  async getNarInfo(hash: string, options?: AbortOptions): Promise<NarInfo | undefined> {
    return await this.#get(hash, options, async () => {
      const read = async (contents: AsyncIterable<Uint8Array>) => {
        const bytes = await collectAtMost(contents, MAX_NARINFO_BYTES);
        if (bytes !== undefined) return NarInfo.parse(Buffer.from(bytes).toString());
        const reason = `expected a narinfo of at most ${MAX_NARINFO_BYTES} bytes, found more`;
        throw new StoreError("data_loss", reason);
      };
      const limits = { ...this.#narInfoLimits, ...options };
      const narInfo = await this.#client.get(`${hash}.narinfo`, read, limits);
      if (narInfo === undefined) return undefined;
      if (encodeNixbase32(narInfo.storePath.hashPart) !== hash) {
        throw new StoreError("data_loss", `the narinfo is that of "${narInfo.storePath}"`);
      }
      this.#expectTrusted(narInfo);
      return narInfo;
    });
  }

  /**
   * Downloads the NAR of a store path and stores its contents, whatever is stored of them already. None of the
   * directories of a wrong NAR is visible, though blobs may be stored.
   *
   * @returns its PathInfo, which is not stored
   * @throws StoreError `not_found` for a missing NAR, `unimplemented` for an unknown compression
   */
  async store(
    narInfo: NarInfo,
    services: { blobService: BlobService; directoryService: DirectoryService },
    options?: StoreNarOptions,
  ): Promise<PathInfo> {
    return await this.#get(encodeNixbase32(narInfo.storePath.hashPart), options, async () => {
      const { url, narSize, narSha256, ca } = narInfo;
      const compression = compressionOf(narInfo);
      const { signal, watch } = options ?? {};
      const read = async (file: AsyncIterable<Uint8Array>) => {
        const nar =
          compression === "none"
            ? file
            : decompress(file, compression, { signal, name: quoteText(url) });
        const bounded = expectAtMost(nar, narSize);
        return await ingestNar(watch?.(bounded) ?? bounded, services, {
          signal,
          expected: { narSize, narSha256 },
          // The content address of a path that refers to itself covers its NAR with those references removed.
          expectedCa: refersToItself(narInfo) ? undefined : ca,
        });
      };
      const ingested = await this.#client.get(url, read, { signal });
      if (ingested !== undefined) return pathInfoFromNarInfo(narInfo, ingested.node);
      throw new StoreError("not_found", `Cannot get ${quoteText(url)}: there is no such file`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  async #get<T>(
    hash: string,
    options: AbortOptions | undefined,
    action: () => Promise<T>,
  ): Promise<T> {
    try {
      return await action();
    } catch (error) {
      options?.signal?.throwIfAborted();
      if (!(error instanceof CastoreError)) throw error;
      // The caller's argument is valid: the response of the cache is not.
      const code = error.code === "invalid_argument" ? "data_loss" : error.code;
      const message = `Cannot get "${hash}" from ${this.name}: ${error.message}`;
      throw new StoreError(code, message, { cause: error });
    }
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
}

function compressionOf({ url, compression = "bzip2" }: NarInfo): Compression | "none" {
  const known = ["none", ...COMPRESSIONS] as const;
  const found = known.find((name) => name === compression);
  if (found !== undefined) return found;
  const reason = `expected one of ${known.join(", ")}, found ${quoteText(compression)}`;
  throw new StoreError("unimplemented", `Cannot decompress ${quoteText(url)}: ${reason}`);
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
