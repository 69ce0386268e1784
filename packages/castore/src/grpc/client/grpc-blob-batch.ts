import {
  create,
  type DescMethod,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  BlobBatchService as BlobBatchServiceDescriptor,
  PutBlobsRequestSchema,
  PutFramesRequest_BlobSchema,
  PutFramesRequestSchema,
  PutListRequestSchema,
  type ReadBlobsResponse_Blob,
} from "@tvix/proto/castore";
import pLimit from "p-limit";
import type { BlobStat, FrameBatch } from "../../blobservice/blob-service.ts";
import { ChunkList, ChunkListBuilder, type ChunkMeta } from "../../blobservice/chunk-list.ts";
import { decodeFrames } from "../../blobservice/decode-frames.ts";
import { expectPlausibleList } from "../../blobservice/put-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes } from "../../bytes/byte-string.ts";
import { contentSizeOf } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import {
  MAX_BATCH_BLOBS,
  MAX_BATCH_BYTES,
  MAX_CHUNK_BYTES,
  MAX_LIST_CHUNKS,
} from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { fromConnectError } from "../transport/connect-error.ts";
import { type BytesField, encodeFields, frameFields, frameMessage } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { Retries, withRetries } from "../transport/retry.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { Upload } from "../transport/upload.ts";

const METHODS = BlobBatchServiceDescriptor.method;

/** Numbers of the fields of requests that carry contents. */
const PUT_FIELDS = { contents: PutBlobsRequestSchema.field.contents.number };
const PUT_FRAMES_FIELDS = {
  chunks: PutFramesRequestSchema.field.chunks.number,
  frames: PutFramesRequestSchema.field.frames.number,
  blobs: PutFramesRequestSchema.field.blobs.number,
};
const FRAMED_BLOB_FIELDS = {
  digest: PutFramesRequest_BlobSchema.field.digest.number,
  chunks: PutFramesRequest_BlobSchema.field.chunks.number,
};

/** How many calls are under way at the same time. */
const CONCURRENCY = 4;

/** How many bytes of blobs go into one call: fewer than may, so that several work at the same time. */
const BATCH_BYTES = 1024 * 1024;

/** How many bytes of a list of chunks go into one message, and are kept to be sent again. */
const LIST_PIECE_BYTES = 4096 * ChunkList.ENTRY_BYTES;
const KEPT_BYTES = 4 * 1024 * 1024;

const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** A blob whose digest is known. */
export interface HashedBlob {
  readonly digest: B3Digest;
  readonly data: Uint8Array;
}

/** A blob to read: of a length that is known, or of any up to so many bytes. */
type WantedBlob = ChunkMeta | { readonly digest: B3Digest; readonly maxSize: number };

/** Items that go into one call. */
interface Batch<Item> {
  readonly items: Item[];
  bytes: number;
}

/** The batch service of a server, if it has one, which the first call finds out. */
export class GrpcBlobBatch {
  readonly #channel: Channel;
  /** Whether there is a batch service. */
  readonly #support: ServiceSupport;
  /** Whether it has what came later: sizes, lists of chunks and frames. */
  readonly #lists: ServiceSupport;
  /** Whether it takes frames, which came later still. */
  readonly #frames: ServiceSupport;
  /** Whether it tells how long frames are. */
  readonly #frameSizes: ServiceSupport;
  /** For how many connections it is known that it takes frames. */
  #takesFramesAt: number | undefined;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#support = new ServiceSupport(channel);
    this.#lists = new ServiceSupport(channel);
    this.#frames = new ServiceSupport(channel);
    this.#frameSizes = new ServiceSupport(channel);
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
        const found = await this.#readStored(batch, options);
        const wrong = batch.filter((_, i) => found[i] === "wrong");
        const again = wrong.length > 0 ? await this.#readContents(wrong, options) : [];
        let next = 0;
        return found.map((blob) => (blob === "wrong" ? again[next++] : blob));
      },
    );
  }

  /**
   * The contents of each blob of unknown length, verified; `undefined` for one that is longer than so many bytes, absent or
   * damaged, which nothing but a read of it alone tells apart. `undefined` also if the server takes no batches.
   */
  readUpTo(
    maxSize: number,
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[] | undefined> {
    return this.#inBatches(
      digests.map((digest) => ({ digest, maxSize })),
      () => maxSize,
      async (batch) => {
        const found = await this.#readStored(batch, options);
        return found.map((blob) => (blob === "wrong" ? undefined : blob));
      },
    );
  }

  /** Reads blobs as they are stored. The server has not looked at their digests: some may be wrong. */
  async #readStored(
    batch: readonly WantedBlob[],
    options?: AbortOptions,
  ): Promise<(Uint8Array | "wrong" | undefined)[]> {
    const sent = await this.#read(batch, { frames: true }, options);
    const sizes = sent.map((blob, i) => blob && sizeOf(batch[i]!, blob));
    const framed = sent.flatMap((blob, i) => {
      const size = sizes[i];
      if (blob === undefined || size === undefined || blob.frame.length === 0) return [];
      return [{ chunk: { digest: batch[i]!.digest, size }, frame: blob.frame }];
    });
    const decoded = await decodeFrames(framed);
    let next = 0;
    return sent.map((blob, i) => {
      if (blob === undefined) return undefined;
      if (sizes[i] === undefined) return "wrong";
      if (blob.frame.length > 0) return decoded[next++] ?? "wrong";
      const { contents } = blob;
      if (contents.length !== sizes[i]) return "wrong";
      return batch[i]!.digest.equals(blake3Digest(contents)) ? contents : "wrong";
    });
  }

  async #readContents(
    batch: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<(Uint8Array | undefined)[]> {
    const sent = await this.#read(batch, { frames: false }, options);
    return sent.map((blob, i) => {
      if (blob === undefined) return undefined;
      const { digest, size } = batch[i]!;
      const { contents } = blob;
      const found = blake3Digest(contents);
      if (digest.equals(found)) return contents.length === size ? contents : undefined;
      throw this.#wrong(`read blob ${digest}`, `what was sent has digest ${found}`);
    });
  }

  async #read(
    batch: readonly WantedBlob[],
    { frames }: { frames: boolean },
    options?: AbortOptions,
  ): Promise<readonly (ReadBlobsResponse_Blob | undefined)[]> {
    const blobs = batch.map((wanted) => ({
      digest: wanted.digest.bytes,
      ...("size" in wanted ? { size: BigInt(wanted.size) } : { maxSize: BigInt(wanted.maxSize) }),
    }));
    const response = await this.#call("read blobs", METHODS.read, { blobs, frames }, options);
    this.#expectAnswers(batch, response.blobs);
    return response.blobs.map((blob) => (blob.present ? blob : undefined));
  }

  /**
   * Stores blobs whose digests are known.
   *
   * @returns whether the server takes batches: nothing is stored if it does not
   */
  async put(blobs: readonly HashedBlob[], options?: AbortOptions): Promise<boolean> {
    const stored = await this.#inBatches(
      blobs,
      ({ data }) => data.length,
      async (batch) => {
        const { contents } = PUT_FIELDS;
        const fields = batch.map(({ data }): BytesField => [contents, data]);
        const { digests } = await this.#send("put blobs", METHODS.put, fields, options);
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

  /** Returns length and number of chunks of each blob; `undefined` if the server takes no batches of that kind. */
  stat(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[] | undefined> {
    const run = async (batch: readonly B3Digest[]) => {
      const request = { digests: batch.map(({ bytes }) => bytes) };
      const { blobs } = await this.#call("look up blobs", METHODS.stat, request, options);
      this.#expectAnswers(batch, blobs);
      return blobs.map(({ present, size, chunks }, i) => {
        if (!present) return undefined;
        const isPlausible = size >= chunks && size <= chunks * BigInt(MAX_CHUNK_BYTES);
        if (isPlausible && size <= MAX_SAFE) return { size: Number(size), chunks: Number(chunks) };
        const reason = `the server tells of ${size} bytes in ${chunks} chunks`;
        throw this.#wrong(`look up blob ${batch[i]}`, reason);
      });
    };
    return this.#inBatches(digests, () => 0, run, this.#lists);
  }

  /** Lists the chunks of a blob; `"unknown"` if the server does not do that, `undefined` if there is no such blob. */
  async list(digest: B3Digest, options?: AbortOptions): Promise<ChunkList | undefined | "unknown"> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    if (this.#lists.isMissing()) return "unknown";
    const action = this.#cannot(`look up blob ${digest}`);
    try {
      const take = () => this.#takeList(digest, action, options);
      return await withRetries(this.#channel, take, options);
    } catch (error) {
      const failure = fromConnectError(error, action, signal);
      if (failure instanceof CastoreError && failure.code === "not_found") return undefined;
      if (this.#lists.isAbsence(failure)) return "unknown";
      throw failure;
    }
  }

  /**
   * Stores a blob whose chunks the server has.
   *
   * @returns whether the server does that
   */
  async putList(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<boolean> {
    if (this.#lists.isMissing()) return false;
    const action = this.#cannot(`put blob ${digest}`);
    const { putList } = METHODS;
    const upload = new Upload(this.#channel, putList, action, {
      ...options,
      keptBytes: KEPT_BYTES,
    });
    try {
      for (let at = 0; at === 0 || at < chunks.bytes.length; at += LIST_PIECE_BYTES) {
        const piece = chunks.bytes.subarray(at, at + LIST_PIECE_BYTES);
        const message = at === 0 ? { digest: digest.bytes, chunks: piece } : { chunks: piece };
        await upload.send(
          frameMessage(PutListRequestSchema, create(PutListRequestSchema, message)),
        );
      }
      await upload.finish();
      return true;
    } catch (error) {
      if (this.#lists.isAbsence(error)) return false;
      throw error;
    } finally {
      await upload.cancel();
    }
  }

  /** Tells whether the server takes frames, and asks it if that is not known. */
  async takesFrames(options?: AbortOptions): Promise<boolean> {
    const { connections } = this.#channel;
    if (this.#takesFramesAt === connections && connections > 0) return true;
    if (this.#frames.isMissing()) return false;
    try {
      await this.putFrames({ chunks: ChunkList.of([]), frames: [], blobs: [] }, options);
      this.#takesFramesAt = this.#channel.connections;
      return true;
    } catch (error) {
      if (this.#frames.isAbsence(error)) return false;
      throw error;
    }
  }

  /**
   * Stores chunks that are compressed already, and blobs of them. Throws CastoreError `unimplemented` if the server does
   * not take frames.
   */
  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    const fields: BytesField[] = [[PUT_FRAMES_FIELDS.chunks, batch.chunks.bytes]];
    for (const frame of batch.frames) fields.push([PUT_FRAMES_FIELDS.frames, frame]);
    for (const { digest, chunks } of batch.blobs) {
      const blob = encodeFields([
        [FRAMED_BLOB_FIELDS.digest, digest.bytes],
        [FRAMED_BLOB_FIELDS.chunks, chunks.bytes],
      ]);
      fields.push([PUT_FRAMES_FIELDS.blobs, blob]);
    }
    await this.#send("put chunks", METHODS.putFrames, fields, options);
  }

  /** Streams chunks as the server stores them; throws CastoreError `unimplemented` if it does not do that. */
  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#cannot("read chunks");
    const retries = new Retries(this.#channel, options);
    for (let next = 0; next < chunks.length; ) {
      const end = Math.min(next + MAX_BATCH_BLOBS, chunks.length);
      const entries = chunks.bytes.subarray(
        next * ChunkList.ENTRY_BYTES,
        end * ChunkList.ENTRY_BYTES,
      );
      try {
        const request = { chunks: entries };
        const frames = StreamCall.serverStream(this.#channel, METHODS.readFrames, request, options);
        for await (const { frame } of frames) {
          if (next === end) throw this.#wrong("read chunks", `expected ${end} chunks, found more`);
          const { digest, size } = chunks.at(next);
          const found = contentSizeOf(frame);
          if (found !== size) {
            const reason = `expected a frame of ${size} bytes, found one of ${found ?? "unknown length"}`;
            throw this.#wrong(`read chunk ${digest}`, reason);
          }
          retries.reset();
          next += 1;
          yield frame;
        }
        if (next < end) {
          throw this.#wrong("read chunks", `expected ${end} chunks, found ${next}`);
        }
      } catch (error) {
        try {
          await retries.pause(error);
        } catch (last) {
          const failure = fromConnectError(last, action, signal);
          this.#lists.isAbsence(failure); // notes it
          throw failure;
        }
      }
    }
  }

  /**
   * Returns the length of the frame of each chunk that {@link frames} streams.
   *
   * @throws CastoreError `unimplemented` if the server does not tell, or stores no frames
   */
  async frameSizes(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array> {
    const sizes = new Uint32Array(chunks.length);
    options?.signal?.throwIfAborted();
    if (this.#frameSizes.isMissing()) throw this.#noFrameSizes();
    for (let next = 0; next < chunks.length; next += MAX_BATCH_BLOBS) {
      const count = Math.min(MAX_BATCH_BLOBS, chunks.length - next);
      const part = chunks.bytes.subarray(
        next * ChunkList.ENTRY_BYTES,
        (next + count) * ChunkList.ENTRY_BYTES,
      );
      const action = "measure chunks";
      try {
        const found = await this.#call(action, METHODS.frameSizes, { chunks: part }, options);
        if (found.sizes.length !== count) {
          const reason = `expected ${count} lengths, found ${found.sizes.length}`;
          throw this.#wrong(action, reason);
        }
        sizes.set(found.sizes, next);
      } catch (error) {
        throw this.#frameSizes.isAbsence(error) ? this.#noFrameSizes(error) : error;
      }
    }
    return sizes;
  }

  #noFrameSizes(cause?: unknown): CastoreError {
    const reason = "the server stores no frames, or does not tell how long they are";
    const message = `${this.#cannot("measure chunks")}: ${reason}`;
    return new CastoreError("unimplemented", message, { cause });
  }

  /** Tells whether the server is known to lack {@link list}, {@link putList} and {@link frames}. */
  get lacksLists(): boolean {
    return this.#lists.isMissing();
  }

  /** Tells whether the server is known to take no frames. */
  get lacksFrames(): boolean {
    return this.#frames.isMissing();
  }

  async #takeList(digest: B3Digest, action: string, options?: AbortOptions): Promise<ChunkList> {
    const request = { digest: digest.bytes };
    const { listChunks } = METHODS;
    const call = await StreamCall.dataStream(this.#channel, listChunks, request, options);
    try {
      const builder = new ChunkListBuilder();
      let rest: Uint8Array = new Uint8Array(0);
      for (let data = await call.nextData(); data !== undefined; data = await call.nextData()) {
        const all = rest.length > 0 ? concatBytes([rest, data]) : data;
        const whole = all.length - (all.length % ChunkList.ENTRY_BYTES);
        received(action, () => builder.append(all.subarray(0, whole)));
        rest = all.subarray(whole);
        if (builder.length > MAX_LIST_CHUNKS) {
          const reason = `expected at most ${MAX_LIST_CHUNKS} chunks, found more`;
          throw new CastoreError("resource_exhausted", `${action}: ${reason}`);
        }
      }
      received(action, () => builder.append(rest)); // refuses a part of a chunk
      const list = builder.finish();
      received(action, () => expectPlausibleList(digest, list));
      return list;
    } finally {
      call.cancel();
    }
  }

  /** Divides items over calls, and gives the results in order; `undefined` if there is no such service. */
  async #inBatches<Item, Result>(
    items: readonly Item[],
    sizeOf: (item: Item) => number,
    run: (batch: readonly Item[]) => Promise<readonly Result[]>,
    support: ServiceSupport = this.#support,
  ): Promise<readonly Result[] | undefined> {
    if (support.isMissing()) return undefined;
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
      if (!support.isAbsence(error)) throw error;
      return undefined;
    }
  }

  async #call<Method extends DescMethod>(
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

  /** Makes a call whose request is fields of bytes, which are copied once. */
  async #send<Method extends DescMethod>(
    action: string,
    method: Method,
    fields: readonly BytesField[],
    options?: AbortOptions,
  ): Promise<MessageShape<Method["output"]>> {
    const encode = () => [frameFields(fields)];
    return await this.#convert(
      action,
      () => StreamCall.unaryFramed(this.#channel, method, encode, options),
      options,
    );
  }

  async #convert<T>(action: string, call: () => Promise<T>, options?: AbortOptions): Promise<T> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      return await call();
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

/** Returns the length in bytes that a blob should have; `undefined` for one that is longer than wanted, or no frame. */
function sizeOf(
  wanted: WantedBlob,
  { contents, frame }: ReadBlobsResponse_Blob,
): number | undefined {
  if ("size" in wanted) return wanted.size;
  const size = frame.length > 0 ? contentSizeOf(frame) : contents.length;
  return size !== undefined && size <= wanted.maxSize ? size : undefined;
}
