import { DirectoryBatchService as DirectoryBatchServiceDescriptor } from "@tvix/proto/castore";
import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { encodeDirectory } from "../../directoryservice/encoded-directory.ts";
import { directoryFromProto } from "../../model/convert.ts";
import type { B3Digest } from "../../model/digest.ts";
import type { Directory } from "../../model/directory.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Channel } from "../transport/channel.ts";
import { fromConnectError } from "../transport/connect-error.ts";
import { received } from "../transport/received.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";

const METHODS = DirectoryBatchServiceDescriptor.method;

/** How many calls are under way at the same time, and how many directories each is for. */
const CONCURRENCY = 4;
const HAS_PER_CALL = 16_384;
const GET_PER_CALL = 256;

/** The batch service for directories of a server, if it has one, which the first call finds out. */
export class GrpcDirectoryBatch {
  readonly #channel: Channel;
  readonly #support: ServiceSupport;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#support = new ServiceSupport(channel);
  }

  /** Tells whether each directory is there; `undefined` if the server takes no batches. */
  has(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly boolean[] | undefined> {
    return this.#inBatches("look up directories", digests, HAS_PER_CALL, options, async (batch) => {
      const request = { digests: batch.map(({ bytes }) => bytes) };
      return (await StreamCall.unary(this.#channel, METHODS.has, request, options)).present;
    });
  }

  /** Reads directories, verified; `undefined` if the server takes no batches. */
  get(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[] | undefined> {
    const action = "get directories";
    return this.#inBatches(action, digests, GET_PER_CALL, options, async (batch) => {
      const request = { digests: batch.map(({ bytes }) => bytes) };
      const found: (Directory | undefined)[] = [];
      const messages = StreamCall.serverStream(this.#channel, METHODS.get, request, options);
      for await (const { entries } of messages) {
        for (const { directory } of entries) {
          const digest = batch[found.length];
          if (digest === undefined) throw this.#wrongCount(action, batch.length, found.length + 1);
          found.push(directory && this.#verified(digest, () => directoryFromProto(directory)));
        }
      }
      return found;
    });
  }

  #verified(digest: B3Digest, decode: () => Directory): Directory {
    const action = this.#cannot(`get directory ${digest}`);
    const encoded = received(action, () => encodeDirectory(decode()));
    if (encoded.digest.equals(digest)) return encoded.directory;
    throw new CastoreError("data_loss", `${action}: the server sent ${encoded.digest}`);
  }

  /** Divides digests over calls, and gives the results in order; `undefined` if there is no such service. */
  async #inBatches<Result>(
    action: string,
    digests: readonly B3Digest[],
    perCall: number,
    options: AbortOptions | undefined,
    call: (batch: readonly B3Digest[]) => Promise<readonly Result[]>,
  ): Promise<readonly Result[] | undefined> {
    options?.signal?.throwIfAborted();
    if (this.#support.isMissing()) return undefined;
    const batches: (readonly B3Digest[])[] = [];
    for (let at = 0; at < digests.length; at += perCall) {
      batches.push(digests.slice(at, at + perCall));
    }
    try {
      const results = await pLimit(CONCURRENCY).map(batches, async (batch) => {
        const answers = await call(batch);
        if (answers.length === batch.length) return answers;
        throw this.#wrongCount(action, batch.length, answers.length);
      });
      return results.flat();
    } catch (error) {
      const failure = fromConnectError(error, this.#cannot(action), options?.signal);
      if (!this.#support.isAbsence(failure)) throw failure;
      return undefined;
    }
  }

  #wrongCount(action: string, expected: number, found: number): CastoreError {
    const reason = `expected ${expected} answers, found ${found}`;
    return new CastoreError("data_loss", `${this.#cannot(action)}: ${reason}`);
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}
