import {
  DirectoryBatchService as DirectoryBatchServiceDescriptor,
  GetDirectoriesResponse_EntrySchema,
  GetDirectoriesResponseSchema,
} from "@tvix/proto/castore";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes } from "../../bytes/byte-string.ts";
import { encodeDirectory } from "../../directoryservice/encoded-directory.ts";
import { B3Digest } from "../../model/digest.ts";
import type { Directory } from "../../model/directory.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Channel } from "../transport/channel.ts";
import { bytesIn } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { BatchCalls } from "./batch-calls.ts";
import { receivedDirectory } from "./received-directory.ts";

const METHODS = DirectoryBatchServiceDescriptor.method;
const ENTRIES = GetDirectoriesResponseSchema.field.entries;
const DIRECTORY = GetDirectoriesResponse_EntrySchema.field.directory;

/** About how many bytes a directory takes in an answer. */
const DIRECTORY_BYTES = 4096;

/** The batch service for directories of a server, if it has one, which the first call finds out. */
export class GrpcDirectoryBatch {
  readonly #channel: Channel;
  readonly #calls: BatchCalls;
  readonly #support: ServiceSupport;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#calls = new BatchCalls(channel);
    this.#support = new ServiceSupport(channel);
  }

  /** Tells whether each directory is there; `undefined` if the server takes no batches. */
  async has(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly boolean[] | undefined> {
    options?.signal?.throwIfAborted();
    const has = async (batch: readonly B3Digest[]) => {
      const request = { digests: batch.map(({ bytes }) => bytes) };
      const action = "look up directories";
      const { present } = await this.#calls.call(action, METHODS.has, request, options);
      this.#calls.expectAnswers(batch, present);
      return present;
    };
    return await this.#calls.inBatches(digests, () => B3Digest.LENGTH, has, this.#support);
  }

  /** Reads directories, verified; `undefined` if the server takes no batches. */
  async get(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[] | undefined> {
    options?.signal?.throwIfAborted();
    const get = (batch: readonly B3Digest[]) => this.#get(batch, options);
    return await this.#calls.inBatches(digests, () => DIRECTORY_BYTES, get, this.#support);
  }

  async #get(
    batch: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    const request = { digests: batch.map(({ bytes }) => bytes) };
    const found: (Directory | undefined)[] = [];
    try {
      const batches = StreamCall.encodedStream(this.#channel, METHODS.get, request, options);
      for await (const messages of batches) {
        for (const entry of messages.flatMap((message) => bytesIn(message, ENTRIES))) {
          const parts = bytesIn(entry, DIRECTORY);
          const digest = batch[found.length];
          const isFound = digest !== undefined && parts.length > 0;
          found.push(isFound ? this.#verified(digest, joined(parts)) : undefined);
        }
        if (found.length > batch.length) break;
      }
    } catch (error) {
      throw fromRpcError(error, this.#calls.cannot("get directories"), options?.signal);
    }
    this.#calls.expectAnswers(batch, found);
    return found;
  }

  #verified(digest: B3Digest, message: Uint8Array): Directory {
    const action = this.#calls.cannot(`get directory ${digest}`);
    const isExpected = (found: B3Digest) => found.equals(digest);
    const encoded = received(action, () => encodeDirectory(receivedDirectory(message, isExpected)));
    if (encoded.digest.equals(digest)) return encoded.directory;
    throw new CastoreError("data_loss", `${action}: the server sent ${encoded.digest}`);
  }
}

/** Joins the parts of a message that came in several: together, they encode all of it. */
function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : concatBytes(parts);
}
