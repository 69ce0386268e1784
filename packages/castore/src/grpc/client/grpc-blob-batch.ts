import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { BlobBatchService as BlobBatchServiceDescriptor } from "@tvix/proto/castore";
import pLimit from "p-limit";
import type { ChunkMeta } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS, MAX_BATCH_BYTES } from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { fromConnectError } from "../transport/connect-error.ts";
import { received } from "../transport/received.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";

const METHODS = BlobBatchServiceDescriptor.method;

/** How many calls are under way at the same time. */
const CONCURRENCY = 4;

/** How many bytes of blobs go into one call: fewer than may, so that several work at the same time. */
const BATCH_BYTES = 1024 * 1024;

/** Items that go into one call. */
interface Batch<Item> {
  readonly items: Item[];
  bytes: number;
}

/** The batch service of a server, if it has one, which the first call finds out. */
export class GrpcBlobBatch {
  readonly #channel: Channel;
  readonly #support: ServiceSupport;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#support = new ServiceSupport(channel);
  }

  /** Blobs of up to so many bytes can be in a batch. */
  static readonly MAX_SIZE: number = MAX_BATCH_BYTES;

  /** Whether each blob is there; `undefined` if the server takes no batches. */
  has(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly boolean[] | undefined> {
    return this.#inBatches(
      digests,
      () => 0,
      async (batch) => {
        const request = { digests: batch.map(({ bytes }) => bytes) };
        const { present } = await this.#call("look up blobs", METHODS.has, request, options);
        this.#expectAnswers(batch, present);
        return present;
      },
    );
  }

  /** The contents of each blob, verified; `undefined` if the server takes no batches. */
  read(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[] | undefined> {
    return this.#inBatches(
      blobs,
      ({ size }) => size,
      async (batch) => {
        const request = {
          blobs: batch.map(({ digest, size }) => ({ digest: digest.bytes, size: BigInt(size) })),
        };
        const response = await this.#call("read blobs", METHODS.read, request, options);
        this.#expectAnswers(batch, response.blobs);
        return response.blobs.map(({ present, contents }, i) => {
          if (!present) return undefined;
          const { digest, size } = batch[i]!;
          const found = blake3Digest(contents);
          if (digest.equals(found)) return contents.length === size ? contents : undefined;
          throw this.#wrong(`read blob ${digest}`, `what was sent has digest ${found}`);
        });
      },
    );
  }

  /**
   * Stores blobs whose digests are known.
   *
   * @returns whether the server takes batches: nothing is stored if it does not
   */
  async put(
    blobs: readonly { readonly digest: B3Digest; readonly data: Uint8Array }[],
    options?: AbortOptions,
  ): Promise<boolean> {
    const stored = await this.#inBatches(
      blobs,
      ({ data }) => data.length,
      async (batch) => {
        const request = { contents: batch.map(({ data }) => data) };
        const { digests } = await this.#call("put blobs", METHODS.put, request, options);
        this.#expectAnswers(batch, digests);
        for (const [i, { digest }] of batch.entries()) {
          const action = this.#cannot(`put blob ${digest}`);
          const found = received(action, () => B3Digest.fromBytes(digests[i]!));
          if (!digest.equals(found)) throw this.#wrong(`put blob ${digest}`, `${found} was stored`);
        }
        return digests;
      },
    );
    return stored !== undefined;
  }

  /** Divides items over calls, and gives the results in order; `undefined` if there is no such service. */
  async #inBatches<Item, Result>(
    items: readonly Item[],
    sizeOf: (item: Item) => number,
    run: (batch: readonly Item[]) => Promise<readonly Result[]>,
  ): Promise<readonly Result[] | undefined> {
    if (this.#support.isMissing()) return undefined;
    const batches: Batch<Item>[] = [];
    for (const item of items) {
      const size = sizeOf(item);
      let batch = batches.at(-1);
      const fits = batch && batch.items.length < MAX_BATCH_BLOBS;
      if (batch === undefined || !fits || batch.bytes + size > BATCH_BYTES) {
        batch = { items: [], bytes: 0 };
        batches.push(batch);
      }
      batch.items.push(item);
      batch.bytes += size;
    }
    try {
      const results = await pLimit(CONCURRENCY).map(batches, ({ items }) => run(items));
      return results.flat();
    } catch (error) {
      if (!this.#support.isAbsence(error)) throw error;
      return undefined;
    }
  }

  async #call<Method extends DescMethod>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      return await StreamCall.unary(this.#channel, method, request, options);
    } catch (error) {
      throw fromConnectError(error, this.#cannot(action), signal);
    }
  }

  #expectAnswers(asked: readonly unknown[], answers: readonly unknown[]): void {
    if (answers.length === asked.length) return;
    const reason = `expected ${asked.length} answers, found ${answers.length}`;
    throw this.#wrong("use a batch", reason);
  }

  #wrong(action: string, reason: string): CastoreError {
    return new CastoreError("data_loss", `${this.#cannot(action)}: ${reason}`);
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}
