import { type AbortOptions, CastoreError, equalBytes } from "@tvix/castore";
import { type Channel, StreamCall } from "@tvix/castore/grpc";
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

const METHODS = PathInfoServiceDescriptor.method;

/** PathInfos in a gRPC server, validated as they arrive. Disposes of its channel. */
export class GrpcPathInfoService implements PathInfoService {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    expectHashPart(hashPart);
    const action = this.#cannot(`get the PathInfo of ${encodeNixbase32(hashPart)}`);
    let message: PathInfoMessage;
    try {
      const byWhat = { case: "byOutputHash", value: hashPart } as const;
      message = await StreamCall.unary(this.#channel, METHODS.get, { byWhat }, options);
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
      const request = pathInfoToProto(pathInfo);
      message = await StreamCall.unary(this.#channel, METHODS.put, request, options);
    } catch (error) {
      throw fromConnectError(error, action, signal);
    }
    return received(message, action, pathInfo.storePath.hashPart);
  }

  async *list(options?: AbortOptions): AsyncGenerator<PathInfo> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#cannot("list PathInfos");
    try {
      const messages = StreamCall.serverStream(this.#channel, METHODS.list, {}, options);
      for await (const message of messages) yield received(message, action);
    } catch (error) {
      throw fromConnectError(error, action, signal);
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
