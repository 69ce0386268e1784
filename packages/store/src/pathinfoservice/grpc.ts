import { type Client, createClient } from "@connectrpc/connect";
import { type AbortOptions, CastoreError, equalBytes } from "@tvix/castore";
import type { Channel } from "@tvix/castore/grpc";
import { fromConnectError } from "@tvix/castore/rpc";
import {
  type PathInfo as PathInfoMessage,
  PathInfoService as PathInfoServiceDescriptor,
} from "@tvix/proto/store";
import { pathInfoFromProto, pathInfoToProto } from "../convert.ts";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** PathInfos in a gRPC server, validated as they arrive. Disposes of its channel. */
export class GrpcPathInfoService implements PathInfoService {
  readonly #channel: Channel;
  readonly #client: Client<typeof PathInfoServiceDescriptor>;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#client = createClient(PathInfoServiceDescriptor, channel.transport);
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    expectHashPart(hashPart);
    const action = this.#cannot(`get the PathInfo of ${encodeNixbase32(hashPart)}`);
    let message: PathInfoMessage;
    try {
      const byWhat = { case: "byOutputHash", value: hashPart } as const;
      message = await this.#client.get({ byWhat }, { signal });
    } catch (error) {
      const failure = fromConnectError(error, action, signal);
      if (failure instanceof CastoreError && failure.code === "not_found") return undefined;
      throw failure;
    }
    return received(message, action, hashPart);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#cannot(`put the PathInfo of ${pathInfo.storePath}`);
    let message: PathInfoMessage;
    try {
      message = await this.#client.put(pathInfoToProto(pathInfo), { signal });
    } catch (error) {
      throw fromConnectError(error, action, signal);
    }
    return received(message, action, pathInfo.storePath.hashPart);
  }

  async *list(options?: AbortOptions): AsyncGenerator<PathInfo> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#cannot("list PathInfos");
    const stop = new AbortController(); // ends the call when the reader does
    const callSignal = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    try {
      for await (const message of this.#client.list({}, { signal: callSignal })) {
        yield received(message, action);
      }
    } catch (error) {
      throw fromConnectError(error, action, signal);
    } finally {
      stop.abort();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

/** Validates what a server sent; what it got wrong is not the fault of whoever asked. */
function received(message: PathInfoMessage, action: string, hashPart?: Uint8Array): PathInfo {
  let pathInfo: PathInfo;
  try {
    pathInfo = pathInfoFromProto(message);
  } catch (cause) {
    if (!(cause instanceof CastoreError)) throw cause;
    throw new StoreError("data_loss", `${action}: ${cause.message}`, { cause });
  }
  if (hashPart !== undefined && !equalBytes(pathInfo.storePath.hashPart, hashPart)) {
    throw new StoreError("data_loss", `${action}: the server sent that of ${pathInfo.storePath}`);
  }
  return pathInfo;
}
