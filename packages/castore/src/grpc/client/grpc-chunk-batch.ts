import { create, toBinary } from "@bufbuild/protobuf";
import {
  BlobBatchService as BlobBatchServiceDescriptor,
  PutFramesRequest_BlobSchema,
  PutFramesRequest_PartSchema,
  PutFramesRequestSchema,
  PutListRequestSchema,
} from "@tvix/proto/castore";
import type { FrameBatch, PutListOptions } from "../../blobservice/blob-service.ts";
import { ChunkList, ChunkListBuilder } from "../../blobservice/chunk-list.ts";
import { expectPlausibleList } from "../../blobservice/put-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes } from "../../bytes/byte-string.ts";
import { contentSizeOf } from "../../compression/zstd-frame.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError, hasCode } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS, MAX_LIST_CHUNKS } from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { type BytesField, encodeFields, frameFields, frameMessage } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { Retries, withRetries } from "../transport/retry.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { Upload } from "../transport/upload.ts";
import { BatchCalls } from "./batch-calls.ts";

const METHODS = BlobBatchServiceDescriptor.method;

/** Numbers of the fields of requests that carry frames. */
const PUT_FRAMES_FIELDS = {
  chunks: PutFramesRequestSchema.field.chunks.number,
  frames: PutFramesRequestSchema.field.frames.number,
  blobs: PutFramesRequestSchema.field.blobs.number,
  part: PutFramesRequestSchema.field.part.number,
};
const FRAMED_BLOB_FIELDS = {
  digest: PutFramesRequest_BlobSchema.field.digest.number,
  chunks: PutFramesRequest_BlobSchema.field.chunks.number,
};

/** How many bytes of a list of chunks go into one message, and are kept to be sent again. */
const LIST_PIECE_BYTES = 4096 * ChunkList.ENTRY_BYTES;
const KEPT_BYTES = 4 * 1024 * 1024;

/**
 * Lists of chunks, and chunks as they are compressed, at a server whose batch service has them, which the first call finds
 * out.
 */
export class GrpcChunkBatch {
  readonly #channel: Channel;
  readonly #calls: BatchCalls;
  /** Whether it has lists of chunks, and sends frames. */
  readonly #lists: ServiceSupport;
  /** Whether it takes frames, which came later. */
  readonly #frames: ServiceSupport;
  /** Whether it tells how long frames are. */
  readonly #frameSizes: ServiceSupport;
  /** For how many connections it is known that it takes frames. */
  #takesFramesAt: number | undefined;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#calls = new BatchCalls(channel);
    this.#lists = new ServiceSupport(channel);
    this.#frames = new ServiceSupport(channel);
    this.#frameSizes = new ServiceSupport(channel);
  }

  /** Lists the chunks of a blob; `"unknown"` if the server does not do that, `undefined` if there is no such blob. */
  async list(digest: B3Digest, options?: AbortOptions): Promise<ChunkList | undefined | "unknown"> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    if (this.#lists.isMissing()) return "unknown";
    const action = this.#calls.cannot(`look up blob ${digest}`);
    try {
      const take = () => this.#takeList(digest, action, options);
      return await withRetries(this.#channel, take, options);
    } catch (error) {
      const failure = fromRpcError(error, action, signal);
      if (hasCode(failure, "not_found")) return undefined;
      if (this.#lists.isAbsence(failure)) return "unknown";
      throw failure;
    }
  }

  /**
   * Stores a blob whose chunks the server has.
   *
   * @param options.upload the upload that they came with
   * @returns whether the server does that
   */
  async putList(
    digest: B3Digest,
    chunks: ChunkList,
    options: Pick<PutListOptions, "signal" | "upload"> = {},
  ): Promise<boolean> {
    if (this.#lists.isMissing()) return false;
    const action = this.#calls.cannot(`put blob ${digest}`);
    const { putList } = METHODS;
    const { signal, upload: name } = options;
    const upload = new Upload(this.#channel, putList, action, { signal, keptBytes: KEPT_BYTES });
    try {
      for (let at = 0; at === 0 || at < chunks.bytes.length; at += LIST_PIECE_BYTES) {
        const piece = chunks.bytes.subarray(at, at + LIST_PIECE_BYTES);
        const first = { digest: digest.bytes, upload: name ?? new Uint8Array(0) };
        const message = { chunks: piece, ...(at === 0 && first) };
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
    await this.sendFrames(framesRequest(batch), options);
  }

  /** Does what {@link putFrames} does with what {@link framesRequest} returned, which is not used afterwards. */
  async sendFrames(request: Uint8Array, options?: AbortOptions): Promise<void> {
    await this.#calls.callFramed("put chunks", METHODS.putFrames, request, options);
  }

  /** Streams chunks as the server stores them; throws CastoreError `unimplemented` if it does not do that. */
  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#calls.cannot("read chunks");
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
          if (next === end)
            throw this.#calls.wrong("read chunks", `expected ${end} chunks, found more`);
          const { digest, size } = chunks.at(next);
          const found = contentSizeOf(frame);
          if (found !== size) {
            const reason = `expected a frame of ${size} bytes, found one of ${found ?? "unknown length"}`;
            throw this.#calls.wrong(`read chunk ${digest}`, reason);
          }
          retries.reset();
          next += 1;
          yield frame;
        }
        if (next < end) {
          throw this.#calls.wrong("read chunks", `expected ${end} chunks, found ${next}`);
        }
      } catch (error) {
        try {
          await retries.pause(error);
        } catch (last) {
          const failure = fromRpcError(last, action, signal);
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
        const found = await this.#calls.call(action, METHODS.frameSizes, { chunks: part }, options);
        if (found.sizes.length !== count) {
          const reason = `expected ${count} lengths, found ${found.sizes.length}`;
          throw this.#calls.wrong(action, reason);
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
    const message = `${this.#calls.cannot("measure chunks")}: ${reason}`;
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
}

/** Returns the request that stores chunks and blobs, with its prefix, in memory of its own. */
export function framesRequest({ chunks, frames, blobs, part }: FrameBatch): Uint8Array {
  const fields: BytesField[] = [[PUT_FRAMES_FIELDS.chunks, chunks.bytes]];
  for (const frame of frames) fields.push([PUT_FRAMES_FIELDS.frames, frame]);
  for (const { digest, chunks } of blobs) {
    const blob = encodeFields([
      [FRAMED_BLOB_FIELDS.digest, digest.bytes],
      [FRAMED_BLOB_FIELDS.chunks, chunks.bytes],
    ]);
    fields.push([PUT_FRAMES_FIELDS.blobs, blob]);
  }
  if (part !== undefined) {
    const offset = BigInt(part.offset);
    const message = create(PutFramesRequest_PartSchema, { upload: part.upload, offset });
    fields.push([PUT_FRAMES_FIELDS.part, toBinary(PutFramesRequest_PartSchema, message)]);
  }
  return frameFields(fields);
}
