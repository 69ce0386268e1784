import type {
  DescMethod,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import {
  type AbortOptions,
  CastoreError,
  compareBytes,
  equalBytes,
  hasCode,
  mapInParallel,
} from "@tvix/castore";
import { type Channel, fromRpcError, onlyFieldOf, StreamCall } from "@tvix/castore/grpc";
import {
  PathInfoBatchService as PathInfoBatchServiceDescriptor,
  type PathInfo as PathInfoMessage,
  type PathInfoSchema,
  PathInfoService as PathInfoServiceDescriptor,
} from "@tvix/proto/store";
import { readCanonicalPathInfo } from "../canonical-path-info.ts";
import { pathInfoFromProto, pathInfoToProto } from "../convert.ts";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { eachOf, PathInfoPage, type ValidPathInfo, validated } from "./path-info-page.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

const METHODS = PathInfoServiceDescriptor.method;
const BATCH_METHODS = PathInfoBatchServiceDescriptor.method;

/** How many hash parts one call of the batch service looks up. */
const BATCH_LENGTH = 1000;

/** How many calls of the batch service are made at the same time, and how many single ones. */
const BATCH_CONCURRENCY = 4;
const CONCURRENCY = 16;

/**
 * Reads and stores PathInfos in a gRPC server, and validates those that it receives. Disposes of its channel.
 *
 * A server without `tvix.store.v1alpha.PathInfoBatchService` gets single calls, and lists in its own order. A listing
 * from a cursor then throws `unimplemented` for a PathInfo that is out of order.
 */
export class GrpcPathInfoService implements PathInfoService {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const action = this.#cannotGet(hashPart);
    const byWhat = { case: "byOutputHash", value: hashPart } as const;
    try {
      return await this.#call(action, METHODS.get, { byWhat }, hashPart, options);
    } catch (error) {
      if (hasCode(error, "not_found")) return undefined;
      throw error;
    }
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    hashParts.forEach(expectHashPart);
    if (hashParts.length > 1) {
      try {
        const batches = divide(hashParts, BATCH_LENGTH);
        const getBatch = (batch: readonly Uint8Array[], options: AbortOptions) =>
          this.#getBatch(batch, options);
        return (await mapInParallel(batches, BATCH_CONCURRENCY, getBatch, options)).flat();
      } catch (error) {
        if (!hasCode(error, "unimplemented")) throw error;
      }
    }
    const get = (hashPart: Uint8Array, options: AbortOptions) => this.get(hashPart, options);
    return await mapInParallel(hashParts, CONCURRENCY, get, options);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const action = this.#cannot(`put the PathInfo of ${pathInfo.storePath}`);
    const { hashPart } = pathInfo.storePath;
    return await this.#call(action, METHODS.put, pathInfoToProto(pathInfo), hashPart, options);
  }

  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo> {
    return eachOf(this.#listPages(readCanonicalPathInfo, options), options?.signal);
  }

  listPages(options?: ListPathInfosOptions): AsyncIterable<PathInfoPage> {
    return this.#listPages((encoded) => validated(encoded), options);
  }

  /** @param take decodes or only validates a PathInfo in its canonical encoding; `undefined` for anything else */
  async *#listPages(
    take: (encoded: Uint8Array) => PathInfo | ValidPathInfo | undefined,
    { after, signal }: ListPathInfosOptions = {},
  ): AsyncGenerator<PathInfoPage> {
    signal?.throwIfAborted();
    if (after !== undefined) expectHashPart(after);
    const action = this.#cannot("list PathInfos");
    const options = signal && { signal };
    let isEmpty = true;
    try {
      for await (const messages of this.#stream(action, BATCH_METHODS.list, { after }, options)) {
        isEmpty = false;
        yield PathInfoPage.of(messages.map((message) => listedInBatch(message, action, take)));
      }
      return;
    } catch (error) {
      if (!isEmpty || !hasCode(error, "unimplemented")) throw error;
    }
    const order = after && new ListingOrder(after, action);
    for await (const messages of this.#stream(action, METHODS.list, {}, options)) {
      const listed = messages.map((message) => received(METHODS.list, message, action));
      const wanted = order === undefined ? listed : listed.filter((one) => order.isWanted(one));
      if (wanted.length > 0) yield PathInfoPage.of(wanted);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async #getBatch(
    hashParts: readonly Uint8Array[],
    options: AbortOptions,
  ): Promise<(PathInfo | undefined)[]> {
    const action = this.#cannot("get PathInfos");
    const found: (PathInfo | undefined)[] = [];
    const request = { hashParts: [...hashParts] };
    for await (const messages of this.#stream(action, BATCH_METHODS.get, request, options)) {
      for (const message of messages) {
        const hashPart = hashParts[found.length];
        if (hashPart === undefined) throw countRefusal(action, hashParts.length, "more");
        found.push(foundInBatch(message, this.#cannotGet(hashPart), hashPart));
      }
    }
    if (found.length === hashParts.length) return found;
    throw countRefusal(action, hashParts.length, found.length);
  }

  async #call<Method extends PathInfoMethod & DescMethodUnary>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    hashPart: Uint8Array,
    options?: AbortOptions,
  ): Promise<PathInfo> {
    try {
      const message = await StreamCall.unaryEncoded(this.#channel, method, request, options);
      return expectOf(hashPart, received(method, message, action), action);
    } catch (error) {
      throw fromRpcError(error, action, options?.signal);
    }
  }

  /** Makes a call, and yields all messages that have come by then at a time, encoded. */
  async *#stream<Method extends DescMethodServerStreaming>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): AsyncGenerator<readonly Uint8Array[]> {
    try {
      yield* StreamCall.encodedStream(this.#channel, method, request, options);
    } catch (error) {
      throw fromRpcError(error, action, options?.signal);
    }
  }

  #cannotGet(hashPart: Uint8Array): string {
    return this.#cannot(`get the PathInfo of ${encodeNixbase32(hashPart)}`);
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

/** Tells which PathInfos of a listing in any order come after a cursor, if the order is that of the hash parts. */
class ListingOrder {
  readonly #after: Uint8Array;
  readonly #action: string;
  #last: Uint8Array;

  constructor(after: Uint8Array, action: string) {
    this.#after = after;
    this.#action = action;
    this.#last = after;
  }

  /** @throws StoreError `unimplemented` for one that is out of order */
  isWanted({ storePath }: PathInfo): boolean {
    const { hashPart } = storePath;
    if (compareBytes(hashPart, this.#last) > 0) {
      this.#last = hashPart;
      return true;
    }
    if (this.#last === this.#after) return false; // it sorts before the cursor
    const reason = "expected a listing ordered by hash part, as there is a cursor";
    const found = `found ${storePath} after ${encodeNixbase32(this.#last)}`;
    throw new StoreError("unimplemented", `${this.#action}: ${reason}, ${found}`);
  }
}

/**
 * Returns the PathInfo in a message of a listing, validated.
 *
 * @param take takes it from its canonical encoding
 */
function listedInBatch<Taken>(
  message: Uint8Array,
  action: string,
  take: (encoded: Uint8Array) => Taken | undefined,
): Taken | PathInfo {
  const encoded = onlyFieldOf(message);
  const taken = encoded && take(encoded);
  if (taken !== undefined) return taken;
  const { pathInfo } = decoded(BATCH_METHODS.list, message, action);
  return receivedMessage(pathInfo, action);
}

/** Returns the PathInfo in an answer, `undefined` if there is none. */
function foundInBatch(
  message: Uint8Array,
  action: string,
  hashPart: Uint8Array,
): PathInfo | undefined {
  if (message.length === 0) return undefined;
  const encoded = onlyFieldOf(message);
  const read = encoded && readCanonicalPathInfo(encoded);
  if (read !== undefined) return expectOf(hashPart, read, action);
  const { pathInfo } = decoded(BATCH_METHODS.get, message, action);
  return pathInfo && expectOf(hashPart, receivedMessage(pathInfo, action), action);
}

/** A method whose response is PathInfos. */
type PathInfoMethod = DescMethod & { readonly output: typeof PathInfoSchema };

/**
 * Decodes what a server sent, and validates it.
 *
 * @throws StoreError `internal` for what is no message, `data_loss` for what breaks a rule
 */
function received(method: PathInfoMethod, message: Uint8Array, action: string): PathInfo {
  return (
    readCanonicalPathInfo(message) ?? receivedMessage(decoded(method, message, action), action)
  );
}

/** @throws StoreError `data_loss` for what breaks a rule */
function receivedMessage(message: PathInfoMessage | undefined, action: string): PathInfo {
  const wrong = (reason: string, cause?: unknown) =>
    new StoreError("data_loss", `${action}: ${reason}`, { cause });
  if (message === undefined) throw wrong("expected a PathInfo, found none");
  try {
    return pathInfoFromProto(message);
  } catch (cause) {
    if (!(cause instanceof CastoreError)) throw cause;
    throw wrong(cause.message, cause);
  }
}

function decoded<Method extends DescMethod>(
  method: Method,
  message: Uint8Array,
  action: string,
): MessageShape<Method["output"]> {
  try {
    return StreamCall.parse(method, message);
  } catch (error) {
    throw fromRpcError(error, action);
  }
}

/** @throws StoreError `data_loss` for a PathInfo of another hash part */
function expectOf(hashPart: Uint8Array, pathInfo: PathInfo, action: string): PathInfo {
  if (equalBytes(pathInfo.storePath.hashPart, hashPart)) return pathInfo;
  const reason = `the server sent the PathInfo of ${pathInfo.storePath}`;
  throw new StoreError("data_loss", `${action}: ${reason}`);
}

function countRefusal(action: string, expected: number, found: number | "more"): StoreError {
  const reason = `expected ${expected} responses, found ${found}`;
  return new StoreError("data_loss", `${action}: ${reason}`);
}

function divide<Item>(items: readonly Item[], length: number): (readonly Item[])[] {
  const parts: (readonly Item[])[] = [];
  for (let at = 0; at < items.length; at += length) parts.push(items.slice(at, at + length));
  return parts;
}
