import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS } from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import type { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";

/** How many calls are under way at the same time. */
const CONCURRENCY = 4;

/** How many bytes of blobs go into one call by default. */
const BATCH_BYTES = 1024 * 1024;

/** Items that go into one call. */
interface Batch<Item> {
  readonly items: Item[];
  bytes: number;
}

/** Makes calls for many items at a server. */
export class BatchCalls {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /**
   * Divides items over calls, and gives the results in order; `undefined` if there is no such service.
   *
   * @param bytesOf how many bytes of a call, or of its answer, an item takes
   * @param batchBytes how many bytes go into one call. Default: fewer than may, so that several work at the same time
   */
  async inBatches<Item, Result>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    run: (batch: readonly Item[]) => Promise<readonly Result[]>,
    support: ServiceSupport,
    batchBytes: number = BATCH_BYTES,
  ): Promise<readonly Result[] | undefined> {
    if (support.isMissing()) return undefined;
    const batches: Batch<Item>[] = [];
    for (const item of items) {
      const bytes = bytesOf(item);
      let batch = batches.at(-1);
      const fits = batch && batch.items.length < MAX_BATCH_BLOBS;
      if (batch === undefined || !fits || batch.bytes + bytes > batchBytes) {
        batch = { items: [], bytes: 0 };
        batches.push(batch);
      }
      batch.items.push(item);
      batch.bytes += bytes;
    }
    try {
      if (batches.length === 1) return await run(batches[0]!.items); // a seventh of what a short call allocates
      const results = await pLimit(CONCURRENCY).map(batches, ({ items }) => run(items));
      return results.flat();
    } catch (error) {
      if (!support.isAbsence(error)) throw error;
      return undefined;
    }
  }

  /** Makes a unary call. Errors are CastoreErrors. */
  async call<Method extends DescMethod>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    return await this.#convert(
      action,
      () => StreamCall.unary(this.#channel, method, request, options),
      options,
    );
  }

  /** Makes a unary call as {@link call} does. Byte strings of the response are in the memory that is returned as well. */
  async callWithMemory<Method extends DescMethod>(
    action: string,
    method: Method,
    request: MessageInitShape<Method["input"]>,
    options?: AbortOptions,
  ): Promise<{ response: MessageShape<Method["output"]>; memory: Uint8Array }> {
    const call = async () => {
      const memory = await StreamCall.unaryEncoded(this.#channel, method, request, options);
      return { response: StreamCall.parse(method, memory), memory };
    };
    return await this.#convert(action, call, options);
  }

  /** Makes a unary call as {@link call} does, of a request as {@link StreamCall.unaryFramed} takes it. */
  async callFramed<Method extends DescMethod>(
    action: string,
    method: Method,
    request: Uint8Array,
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    return await this.#convert(
      action,
      () => StreamCall.unaryFramed(this.#channel, method, request, options),
      options,
    );
  }

  async #convert<T>(action: string, call: () => Promise<T>, options?: AbortOptions): Promise<T> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      throw fromRpcError(error, this.cannot(action), signal);
    }
  }

  /** Refuses answers that are not as many as was asked for. */
  expectAnswers(asked: readonly unknown[], answers: readonly unknown[]): void {
    if (answers.length === asked.length) return;
    const reason = `expected ${asked.length} answers, found ${answers.length}`;
    throw this.wrong("use a batch", reason);
  }

  /** Creates the error for an answer that cannot be right. */
  wrong(action: string, reason: string): CastoreError {
    return new CastoreError("data_loss", `${this.cannot(action)}: ${reason}`);
  }

  /** Returns what a message about an action begins with. */
  cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}
