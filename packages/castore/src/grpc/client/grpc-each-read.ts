import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  BlobBatchService as BlobBatchServiceDescriptor,
  ReadEachRequestSchema,
} from "@tvix/proto/castore";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import type { ChunkMeta } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { MAX_EACH_BYTES, MAX_EACH_READS } from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { frameMessage } from "../transport/frames.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { storedBlobIn } from "./stored-blob-in.ts";

const METHOD = BlobBatchServiceDescriptor.method.readEach;

/** A call ends after so many reads, so that it does not keep a server from shutting down, and so long after the last. */
const READS_PER_CALL = 256;
const IDLE_MS = 1_000;

/**
 * For how long no such call is made where none was ever answered, in milliseconds: a proxy may wait for requests to be
 * complete.
 */
const DISTRUST_MS = 5 * 60_000;

/** What a read has come to: `"elsewhere"` where it has to be made by another call, which may tell why. */
type Found = StoredBlob | undefined | "elsewhere";

/**
 * Reads single blobs by one call, which lasts for many of them: to make a call takes several times as long as to answer a read.
 * Whatever goes wrong with the call, its reads are to be made elsewhere.
 */
export class GrpcEachRead {
  readonly #channel: Channel;
  readonly #support: ServiceSupport;
  #current: ReadCall | undefined;
  #wasAnswered = false;
  #distrustedMs = Number.NEGATIVE_INFINITY;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#support = new ServiceSupport(channel);
  }

  /** Reads a blob in its stored form, not verified; `undefined` if it is absent or of another length. */
  async read(blob: ChunkMeta, { signal }: AbortOptions = {}): Promise<Found> {
    signal?.throwIfAborted();
    const isDistrusted = performance.now() - this.#distrustedMs < DISTRUST_MS;
    if (isDistrusted || this.#support.isMissing()) return "elsewhere";
    if (this.#current === undefined || this.#current.isOver) this.#current = this.#begin();
    return await this.#current.read(blob, signal);
  }

  #begin(): ReadCall {
    return new ReadCall(this.#channel, {
      onFailure: (error) => this.#support.isAbsence(fromRpcError(error, "Cannot read blobs")),
      onAnswer: () => {
        this.#wasAnswered = true;
      },
      isSilent: () => {
        if (!this.#wasAnswered) this.#distrustedMs = performance.now();
        return !this.#wasAnswered;
      },
    });
  }
}

interface ReadCallOptions {
  /** Is told why the call has failed. */
  readonly onFailure: (error: unknown) => void;
  readonly onAnswer: () => void;
  /** Is asked when reads have waited for some time: whether no call was ever answered, so that they are to be made elsewhere. */
  readonly isSilent: () => boolean;
}

/** One call. */
class ReadCall {
  readonly #options: ReadCallOptions;
  /** Those that are not answered. */
  readonly #pending = new Map<number, { blob: ChunkMeta; resolve: (found: Found) => void }>();
  readonly #idle: NodeJS.Timeout;
  #call: StreamCall<typeof METHOD> | undefined;
  /** What was asked before the call had begun. */
  #early: Uint8Array[] = [];
  #reads = 0;
  #bytes = 0;
  #isOver = false;

  constructor(channel: Channel, options: ReadCallOptions) {
    this.#options = options;
    this.#idle = setTimeout(() => this.#rest(), IDLE_MS).unref();
    void this.#run(channel);
  }

  /** Whether it takes no more reads. */
  get isOver(): boolean {
    return this.#isOver;
  }

  async read(blob: ChunkMeta, signal: AbortSignal | undefined): Promise<Found> {
    const isFull = this.#pending.size >= MAX_EACH_READS || this.#bytes + blob.size > MAX_EACH_BYTES;
    if (isFull) return "elsewhere";
    const id = this.#reads++;
    const { promise, resolve, reject } = Promise.withResolvers<Found>();
    this.#pending.set(id, { blob, resolve });
    this.#bytes += blob.size;
    this.#idle.refresh();
    const { digest, size } = blob;
    this.#ask({ id, blob: { digest: digest.bytes, size: BigInt(size) } });
    if (this.#reads === READS_PER_CALL) this.#isOver = true; // it ends with the last answer
    if (signal === undefined) return await promise;
    const onAbort = () => {
      if (this.#take(id) === undefined) return;
      this.#ask({ id });
      this.#endIfDone();
      reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Takes answers until the call has ended. */
  async #run(channel: Channel): Promise<void> {
    try {
      const call = await StreamCall.begin(channel, METHOD);
      this.#call = call;
      for (const frame of this.#early) call.sendWhole(frame);
      this.#early = [];
      this.#endIfDone();
      for (;;) {
        const messages = await call.nextMessages();
        if (messages === undefined) break;
        for (const message of messages) this.#answer(message);
        this.#endIfDone();
      }
    } catch (error) {
      this.#options.onFailure(error);
    }
    this.#isOver = true;
    clearTimeout(this.#idle);
    this.#call?.cancel();
    this.#giveUp();
  }

  #giveUp(): void {
    for (const id of [...this.#pending.keys()]) this.#take(id)!.resolve("elsewhere");
  }

  #answer(message: Uint8Array): void {
    const { id, blob } = StreamCall.parse(METHOD, message);
    this.#options.onAnswer();
    const read = this.#take(id);
    if (read === undefined) return; // it was cancelled
    if (blob === undefined) read.resolve("elsewhere");
    else read.resolve(storedBlobIn(blob, read.blob.size, message));
  }

  #take(id: number): { blob: ChunkMeta; resolve: (found: Found) => void } | undefined {
    const read = this.#pending.get(id);
    if (read === undefined) return undefined;
    this.#pending.delete(id);
    this.#bytes -= read.blob.size;
    return read;
  }

  #ask(request: MessageInitShape<typeof ReadEachRequestSchema>): void {
    const frame = frameMessage(ReadEachRequestSchema, create(ReadEachRequestSchema, request));
    if (this.#call === undefined) this.#early.push(frame);
    else this.#call.sendWhole(frame);
  }

  /** Ends the call when nobody has asked for a while. */
  #rest(): void {
    if (this.#pending.size > 0 && (this.#call === undefined || !this.#options.isSilent())) {
      this.#idle.refresh();
      return;
    }
    this.#isOver = true;
    this.#giveUp();
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#isOver && this.#pending.size === 0) this.#call?.endRequests();
  }
}
