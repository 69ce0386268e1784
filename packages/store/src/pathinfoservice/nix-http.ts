import { createHash } from "node:crypto";
import {
  type AbortOptions,
  type BlobService,
  CastoreError,
  COMPRESSIONS,
  type Compression,
  collectAtMost,
  type DirectoryService,
  decompress,
  equalBytes,
  type Node,
  SingleFlight,
} from "@tvix/castore";
import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from "cockatiel";
import pRetry from "p-retry";
import { StoreError } from "../errors.ts";
import { ingestNar } from "../nar/ingest.ts";
import { pathInfoFromNarInfo } from "../narinfo-convert.ts";
import { buildCaPath } from "../nix/build-path.ts";
import { NarInfo } from "../nix/narinfo.ts";
import { formatNixHash } from "../nix/nix-hash.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { fingerprint, type VerifyingKey } from "../nix/signature.ts";
import { expectHashPart } from "../nix/store-path.ts";
import { mapInParallel } from "../parallel.ts";
import type { PathInfo } from "../pathinfo.ts";
import { BinaryCacheClient } from "./binary-cache-client.ts";

import type { PathInfoService } from "./path-info-service.ts";

/** What {@link NixHttpPathInfoService} is made of. */
export interface NixHttpOptions {
  /** Where the cache is, of `http:` or `https:`. */
  baseUrl: string;
  /** Where contents go. Not disposed of with the service. */
  blobService: BlobService;
  directoryService: DirectoryService;
  /**
   * Keys of which one has to have signed what is got, unless it is content-addressed. Default: none, nothing has to be
   * signed.
   */
  publicKeys?: readonly VerifyingKey[];
  /** How long the server may be silent, in milliseconds. Default: 15,000. */
  timeoutMs?: number | undefined;
  /** How long it is left alone at first when it cannot be reached, in milliseconds. Default: 5,000. */
  restMs?: number | undefined;
}

const TIMEOUT_MS = 15_000;
const REST_MS = 5_000;

/** How long a cache is left alone at most, in milliseconds. */
const MAX_REST_MS = 60_000;

/** How often something is asked for at most. */
const ATTEMPTS = 3;

/** How many store paths of one batch are fetched at the same time. */
const CONCURRENCY = 8;

/** How many bytes a narinfo may have. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/**
 * The store paths of a binary cache of Nix, such as https://cache.nixos.org. Whoever asks for one gets it with its
 * contents, which are stored meanwhile, once for all who ask at the same time; it goes on as long as one of them
 * waits. Nothing remembers the PathInfo: that is for a cache before this.
 *
 * What a cache sends is verified by the signatures on its narinfo, and by hash and size of the NAR; nothing of another
 * NAR is visible, though blobs may stay. A cache that cannot be reached is tried some times, and then left alone for
 * some seconds, more each time, in which whoever asks is told so at once.
 *
 * `get` throws StoreError `unavailable` for that; `permission_denied` for what no trusted key has signed; `data_loss`
 * for a narinfo or NAR that is wrong, `not_found` for a NAR that is not there, `unimplemented` for a compression that
 * is not known. `put` and `list` are `unimplemented`: a binary cache takes and tells no such things.
 */
export class NixHttpPathInfoService implements PathInfoService {
  readonly #name: string;
  readonly #client: BinaryCacheClient;
  readonly #services: { blobService: BlobService; directoryService: DirectoryService };
  readonly #publicKeys: readonly VerifyingKey[];
  readonly #running = new SingleFlight<PathInfo | undefined>();
  readonly #breaker: CircuitBreakerPolicy;
  /** Why the cache could not be reached. */
  #trouble: unknown;

  constructor(options: NixHttpOptions) {
    const { baseUrl, blobService, directoryService, publicKeys = [] } = options;
    const { timeoutMs = TIMEOUT_MS, restMs = REST_MS } = options;
    this.#name = baseUrl.replace(/\/*$/, "/");
    this.#client = new BinaryCacheClient(this.#name, { timeoutMs });
    this.#services = { blobService, directoryService };
    this.#publicKeys = publicKeys;
    this.#breaker = circuitBreaker(handleWhen(isUnavailable), {
      breaker: new ConsecutiveBreaker(1),
      halfOpenAfter: new ExponentialBackoff({ initialDelay: restMs, maxDelay: MAX_REST_MS }),
    });
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    expectHashPart(hashPart);
    const hash = encodeNixbase32(hashPart);
    return await this.#running.run(hash, (signal) => this.#unlessResting(hash, signal), options);
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
    throw this.#refusal("unimplemented", "put to", "it is only read");
  }

  list(): AsyncIterable<PathInfo> {
    throw this.#refusal("unimplemented", "list", "it does not tell what there is");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  async #unlessResting(hash: string, signal: AbortSignal): Promise<PathInfo | undefined> {
    const action = `get "${hash}" from`;
    try {
      return await this.#breaker.execute(() => this.#get(hash, signal));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof BrokenCircuitError) {
        const { message } = this.#trouble as Error;
        throw this.#refusal("unavailable", action, `it is left alone for a while: ${message}`);
      }
      if (!(error instanceof CastoreError)) throw error;
      if (isUnavailable(error)) this.#trouble = error;
      // Whoever asks has given no wrong argument: what the cache sent is wrong.
      const code = error.code === "invalid_argument" ? "data_loss" : error.code;
      throw this.#refusal(code, action, error.message, error);
    }
  }

  async #get(hash: string, signal: AbortSignal): Promise<PathInfo | undefined> {
    const narInfo = await retry(() => this.#getNarInfo(hash, signal), signal);
    if (narInfo === undefined) return undefined;
    if (encodeNixbase32(narInfo.storePath.hashPart) !== hash) {
      throw new StoreError("data_loss", `the narinfo is that of "${narInfo.storePath}"`);
    }
    this.#expectTrusted(narInfo);
    return pathInfoFromNarInfo(narInfo, await retry(() => this.#ingest(narInfo, signal), signal));
  }

  async #getNarInfo(hash: string, signal: AbortSignal): Promise<NarInfo | undefined> {
    const stream = await this.#client.get(`${hash}.narinfo`, { signal });
    if (stream === undefined) return undefined;
    const bytes = await collectAtMost(stream, MAX_NARINFO_BYTES);
    if (bytes !== undefined) return NarInfo.parse(Buffer.from(bytes).toString());
    throw new StoreError("data_loss", `the narinfo has more than ${MAX_NARINFO_BYTES} bytes`);
  }

  #expectTrusted(narInfo: NarInfo): void {
    const keys = this.#publicKeys;
    if (keys.length === 0 || isContentAddressed(narInfo)) return;
    const text = fingerprint(narInfo);
    const isGood = narInfo.signatures.some((one) => keys.some((key) => key.verify(text, one)));
    if (isGood) return;
    const names = (named: readonly { name: string }[]) =>
      named.map(({ name }) => `"${name}"`).join(", ");
    const expected = `expected "${narInfo.storePath}" to be signed by ${names(keys)}`;
    const found = names(narInfo.signatures) || "no signature";
    throw new StoreError("permission_denied", `${expected}, found ${found}`);
  }

  /** Stores the contents, whatever was stored of them before. */
  async #ingest(narInfo: NarInfo, signal: AbortSignal): Promise<Node> {
    const { url, compression = "bzip2", narSize, narSha256, ca } = narInfo;
    if (compression !== "none" && !isCompression(compression)) {
      const known = ["none", ...COMPRESSIONS].join(", ");
      const reason = `expected one of ${known}, found "${compression}"`;
      throw new StoreError("unimplemented", `cannot decompress "${url}": ${reason}`);
    }
    const stream = await this.#client.get(url, { signal });
    if (stream === undefined) throw new StoreError("not_found", `there is no "${url}"`);
    const file = checkFile(stream, narInfo);
    const nar =
      compression === "none" ? file : decompress(file, compression, { signal, name: `"${url}"` });
    const { node } = await ingestNar(expectAtMost(nar, narSize), this.#services, {
      signal,
      expected: { narSize, narSha256 },
      // What refers to itself has the hash of its NAR with all such references left out.
      expectedCa: refersToItself(narInfo) ? undefined : ca,
    });
    return node;
  }

  #refusal(code: CastoreError["code"], action: string, reason: string, cause?: unknown) {
    return new StoreError(code, `Cannot ${action} ${this.#name}: ${reason}`, { cause });
  }
}

function isUnavailable(error: unknown): boolean {
  return error instanceof CastoreError && error.code === "unavailable";
}

/** Tries again from the start what a cache fails to give. */
async function retry<T>(run: () => Promise<T>, signal: AbortSignal): Promise<T> {
  return await pRetry(run, {
    retries: ATTEMPTS - 1,
    minTimeout: 200,
    randomize: true,
    shouldRetry: ({ error }) => isUnavailable(error),
    signal,
  });
}

function isCompression(name: string): name is Compression {
  return (COMPRESSIONS as readonly string[]).includes(name);
}

function refersToItself({ storePath, references }: NarInfo): boolean {
  return references.some((reference) => `${reference}` === `${storePath}`);
}

/** Whether the name of a store path follows from its contents, so that nobody need vouch for it. */
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

/** Passes a file on, and throws before its end if it is not the one that a narinfo tells of. */
async function* checkFile(
  stream: AsyncIterable<Uint8Array>,
  { url, fileSize, fileHash }: NarInfo,
): AsyncGenerator<Uint8Array> {
  const hash = fileHash && createHash(fileHash.algorithm);
  let size = 0n;
  for await (const data of stream) {
    size += BigInt(data.length);
    if (fileSize !== undefined && size > fileSize) break;
    hash?.update(data);
    yield data;
  }
  if (fileSize !== undefined && size !== fileSize) {
    const found = size > fileSize ? "more" : `${size}`;
    throw new StoreError(
      "data_loss",
      `expected "${url}" to have ${fileSize} bytes, found ${found}`,
    );
  }
  const digest = hash && new Uint8Array(hash.digest());
  if (digest === undefined || equalBytes(digest, fileHash!.digest)) return;
  const found = formatNixHash({ ...fileHash!, digest });
  throw new StoreError(
    "data_loss",
    `expected "${url}" to have hash ${formatNixHash(fileHash!)}, found ${found}`,
  );
}

/** Passes a NAR on, and throws when there is more of it than there may be: a few bytes may inflate to anything. */
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
