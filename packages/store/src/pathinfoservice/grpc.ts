import type {
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
import { type Channel, StreamCall } from "@tvix/castore/grpc";
import { fromConnectError } from "@tvix/castore/rpc";
import {
  PathInfoBatchService as PathInfoBatchServiceDescriptor,
  type PathInfo as PathInfoMessage,
  PathInfoService as PathInfoServiceDescriptor,
} from "@tvix/proto/store";
import { pathInfoFromProto, pathInfoToProto } from "../convert.ts";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
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
      const message = await this.#call(action, METHODS.get, { byWhat }, options);
      return received(message, action, hashPart);
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
    const message = await this.#call(action, METHODS.put, pathInfoToProto(pathInfo), options);
    return received(message, action, pathInfo.storePath.hashPart);
  }

  async *list({ after, signal }: ListPathInfosOptions = {}): AsyncGenerator<PathInfo> {
    signal?.throwIfAborted();
    if (after !== undefined) expectHashPart(after);
    const action = this.#cannot("list PathInfos");
    const options = signal && { signal };
    let isEmpty = true;
    try {
      for await (const { pathInfo } of this.#stream(
        action,
        BATCH_METHODS.list,
        { after },
        options,
      )) {
        isEmpty = false;
        yield received(pathInfo, action);
      }
      return;
    } catch (error) {
      if (!isEmpty || !hasCode(error, "unimplemented")) throw error;
    }
    let last = after;
    for await (const message of this.#stream(action, METHODS.list, {}, options)) {
      const pathInfo = received(message, action);
      const { hashPart } = pathInfo.storePath;
      if (last !== undefined && compareBytes(hashPart, last) <= 0) {
        if (last === after) continue; // it sorts before the cursor
        const reason = "expected a listing ordered by hash part, as there is a cursor";
        const found = `found ${pathInfo.storePath} after ${encodeNixbase32(last)}`;
        throw new StoreError("unimplemented", `${action}: ${reason}, ${found}`);
      }
      if (last !== undefined) last = hashPart;
      yield pathInfo;
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
    for await (const { pathInfo } of this.#stream(action, BATCH_METHODS.get, request, options)) {
      const hashPart = hashParts[found.length];
      if (hashPart === undefined) throw countRefusal(action, hashParts.length, "more");
      found.push(pathInfo && received(pathInfo, this.#cannotGet(hashPart), hashPart));
    }
    if (found.length === hashParts.length) return found;
    throw countRefusal(action, hashParts.length, found.length);
  }

  async #call<Method extends DescMethodUnary>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    try {
      return await StreamCall.unary(this.#channel, method, request, options);
    } catch (error) {
      throw fromConnectError(error, action, options?.signal);
    }
  }

  async *#stream<Method extends DescMethodServerStreaming>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): AsyncGenerator<MessageShape<Method["output"]>> {
    try {
      yield* StreamCall.serverStream(this.#channel, method, request, options);
    } catch (error) {
      throw fromConnectError(error, action, options?.signal);
    }
  }

  #cannotGet(hashPart: Uint8Array): string {
    return this.#cannot(`get the PathInfo of ${encodeNixbase32(hashPart)}`);
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

/**
 * Validates what a server sent.
 *
 * @throws StoreError `data_loss` for what breaks a rule, or is about another hash part
 */
function received(
  message: PathInfoMessage | undefined,
  action: string,
  hashPart?: Uint8Array,
): PathInfo {
  const wrong = (reason: string, cause?: unknown) =>
    new StoreError("data_loss", `${action}: ${reason}`, { cause });
  if (message === undefined) throw wrong("expected a PathInfo, found none");
  let pathInfo: PathInfo;
  try {
    pathInfo = pathInfoFromProto(message);
  } catch (cause) {
    if (!(cause instanceof CastoreError)) throw cause;
    throw wrong(cause.message, cause);
  }
  if (hashPart !== undefined && !equalBytes(pathInfo.storePath.hashPart, hashPart)) {
    throw wrong(`the server sent the PathInfo of ${pathInfo.storePath}`);
  }
  return pathInfo;
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
