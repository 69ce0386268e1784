import {
  BlobBatchService as BlobBatchServiceDescriptor,
  PutBlobsRequestSchema,
  type ReadBlobsResponse_Blob,
} from "@tvix/proto/castore";
import type { BlobStat, StoredBlob } from "../../blobservice/blob-service.ts";
import type { ChunkMeta } from "../../blobservice/chunk-list.ts";
import { decodeFrames } from "../../blobservice/decode-frames.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { mapSome } from "../../bytes/map-some.ts";
import { contentSizeOf } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { MAX_BATCH_BYTES, MAX_CHUNK_BYTES } from "../../model/limits.ts";
import type { Channel } from "../transport/channel.ts";
import { type BytesField, frameFields } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { ServiceSupport } from "../transport/service-support.ts";
import { BatchCalls } from "./batch-calls.ts";
import { storedBlobIn } from "./stored-blob-in.ts";

const METHODS = BlobBatchServiceDescriptor.method;

/** Number of the field of a request that carries contents. */
const CONTENTS = PutBlobsRequestSchema.field.contents.number;

/** How many bytes of blobs in their stored form go into one call: a call costs as much processor time as 0.2 MB of them. */
const STORED_BATCH_BYTES = 2 * 1024 * 1024;

const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** A blob whose digest is known. */
export interface HashedBlob {
  readonly digest: B3Digest;
  readonly data: Uint8Array;
}

/** A blob to read: of a length that is known, or of any up to so many bytes. */
type WantedBlob = ChunkMeta | { readonly digest: B3Digest; readonly maxSize: number };

/** Small blobs, many at a time, at a server that has the batch service, which the first call finds out. */
export class GrpcBlobBatch {
  readonly #calls: BatchCalls;
  /** Whether there is a batch service. */
  readonly #support: ServiceSupport;
  /** Whether it tells how long blobs are, which came later. */
  readonly #stats: ServiceSupport;

  constructor(channel: Channel) {
    this.#calls = new BatchCalls(channel);
    this.#support = new ServiceSupport(channel);
    this.#stats = new ServiceSupport(channel);
  }

  /** Blobs of up to so many bytes can be in a batch. */
  static readonly MAX_SIZE: number = MAX_BATCH_BYTES;

  /** Whether each blob is there; `undefined` if the server takes no batches. */
  has(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly boolean[] | undefined> {
    return this.#calls.inBatches(
      digests,
      () => 0,
      async (batch) => {
        const request = { digests: batch.map(({ bytes }) => bytes) };
        const { present } = await this.#calls.call("look up blobs", METHODS.has, request, options);
        this.#calls.expectAnswers(batch, present);
        return present;
      },
      this.#support,
    );
  }

  /** The contents of each blob, verified; `undefined` if the server takes no batches. */
  read(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[] | undefined> {
    return this.#calls.inBatches(
      blobs,
      ({ size }) => size,
      async (batch) => {
        const found = await this.#readVerified(batch, options);
        const again = await mapSome(
          found,
          (blob, i) => (blob === "wrong" ? batch[i] : undefined),
          (wrong) => this.#readContents(wrong, options),
        );
        return found.map((blob, i) => (blob === "wrong" ? again[i] : blob));
      },
      this.#support,
    );
  }

  /** Each blob as it is stored, not verified; `undefined` if the server takes no batches. */
  readStored(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[] | undefined> {
    return this.#calls.inBatches(
      blobs,
      ({ size }) => size,
      async (batch) => {
        const { sent, memory } = await this.#read(batch, { frames: true }, options);
        return sent.map((blob, i) => blob && storedBlobIn(blob, batch[i]!.size, memory));
      },
      this.#support,
      STORED_BATCH_BYTES,
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
    return this.#calls.inBatches(
      digests.map((digest) => ({ digest, maxSize })),
      () => maxSize,
      async (batch) => {
        const found = await this.#readVerified(batch, options);
        return found.map((blob) => (blob === "wrong" ? undefined : blob));
      },
      this.#support,
    );
  }

  /** Reads blobs in their stored form, and verifies them here: `"wrong"` for one that does not match its digest. */
  async #readVerified(
    batch: readonly WantedBlob[],
    options?: AbortOptions,
  ): Promise<(Uint8Array | "wrong" | undefined)[]> {
    const { sent } = await this.#read(batch, { frames: true }, options);
    const sizes = sent.map((blob, i) => blob && sizeOf(batch[i]!, blob));
    const decoded = await mapSome(
      sent,
      (blob, i) => {
        const size = sizes[i];
        if (blob === undefined || size === undefined || blob.frame.length === 0) return undefined;
        return { chunk: { digest: batch[i]!.digest, size }, frame: blob.frame };
      },
      decodeFrames,
    );
    return sent.map((blob, i) => {
      if (blob === undefined) return undefined;
      if (blob.frame.length > 0) return decoded[i] ?? "wrong";
      const { contents } = blob;
      if (contents.length !== sizes[i]) return "wrong";
      return batch[i]!.digest.equals(blake3Digest(contents)) ? contents : "wrong";
    });
  }

  async #readContents(
    batch: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<(Uint8Array | undefined)[]> {
    const { sent } = await this.#read(batch, { frames: false }, options);
    return sent.map((blob, i) => {
      if (blob === undefined) return undefined;
      const { digest, size } = batch[i]!;
      const { contents } = blob;
      const found = blake3Digest(contents);
      if (digest.equals(found)) return contents.length === size ? contents : undefined;
      throw this.#calls.wrong(`read blob ${digest}`, `what was sent has digest ${found}`);
    });
  }

  async #read(
    batch: readonly WantedBlob[],
    { frames }: { frames: boolean },
    options?: AbortOptions,
  ): Promise<{
    sent: readonly (ReadBlobsResponse_Blob | undefined)[];
    /** What the contents and frames are in. */
    memory: Uint8Array;
  }> {
    const blobs = batch.map((wanted) => ({
      digest: wanted.digest.bytes,
      ...("size" in wanted ? { size: BigInt(wanted.size) } : { maxSize: BigInt(wanted.maxSize) }),
    }));
    const { response, memory } = await this.#calls.callWithMemory(
      "read blobs",
      METHODS.read,
      { blobs, frames },
      options,
    );
    this.#calls.expectAnswers(batch, response.blobs);
    return { sent: response.blobs.map((blob) => (blob.present ? blob : undefined)), memory };
  }

  /**
   * Stores blobs whose digests are known.
   *
   * @returns whether the server takes batches: nothing is stored if it does not
   */
  async put(blobs: readonly HashedBlob[], options?: AbortOptions): Promise<boolean> {
    const stored = await this.#calls.inBatches(
      blobs,
      ({ data }) => data.length,
      async (batch) => {
        const fields = batch.map(({ data }): BytesField => [CONTENTS, data]);
        const request = frameFields(fields);
        const { digests } = await this.#calls.callFramed(
          "put blobs",
          METHODS.put,
          request,
          options,
        );
        this.#calls.expectAnswers(batch, digests);
        for (const [i, { digest }] of batch.entries()) {
          const action = this.#calls.cannot(`put blob ${digest}`);
          const found = received(action, () => B3Digest.fromBytes(digests[i]!));
          if (!digest.equals(found))
            throw this.#calls.wrong(`put blob ${digest}`, `${found} was stored`);
        }
        return digests;
      },
      this.#support,
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
      const { blobs } = await this.#calls.call("look up blobs", METHODS.stat, request, options);
      this.#calls.expectAnswers(batch, blobs);
      return blobs.map(({ present, size, chunks }, i) => {
        if (!present) return undefined;
        const isPlausible = size >= chunks && size <= chunks * BigInt(MAX_CHUNK_BYTES);
        if (isPlausible && size <= MAX_SAFE) return { size: Number(size), chunks: Number(chunks) };
        const reason = `the server tells of ${size} bytes in ${chunks} chunks`;
        throw this.#calls.wrong(`look up blob ${batch[i]}`, reason);
      });
    };
    return this.#calls.inBatches(digests, () => 0, run, this.#stats);
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
