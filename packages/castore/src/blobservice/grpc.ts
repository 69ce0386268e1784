import { BlobService as BlobServiceDescriptor, type StatBlobResponse } from "@tvix/proto/castore";
import { collectBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import type { Channel } from "../grpc/channel.ts";
import { StreamCall } from "../grpc/stream-call.ts";
import { Outboard } from "../hash/outboard.ts";
import type { AbortOptions } from "../options.ts";
import { fromConnectError } from "../rpc/connect-error.ts";
import { sliceStream } from "../slice-stream.ts";
import type { BlobService, BlobWriter, ChunkMeta, LentBlobs, ReadOptions } from "./blob-service.ts";
import { readChunked, resolveRange } from "./chunked-reader.ts";
import { GrpcBlobBatch } from "./grpc-blob-batch.ts";
import { GrpcBlobWriter } from "./grpc-blob-writer.ts";
import { Download } from "./grpc-download.ts";
import { hasOneByOne, ownBlobs, putOneByOne, readOneByOne } from "./one-by-one.ts";
import type { OutboardSource } from "./verified-range.ts";

const METHODS = BlobServiceDescriptor.method;

/**
 * Blobs in a gRPC server, verified as they arrive. Nothing of a blob of up to 4 MiB is passed on before
 * all of it is found to match its digest; a longer one is passed on while it is hashed, and reading it
 * fails at its end if it does not match. A part of a blob is verified by the chunks that the server
 * lists, which `verifiedRange` need not believe.
 *
 * Disposes of its channel.
 */
export class GrpcBlobService implements BlobService, OutboardSource {
  readonly #channel: Channel;
  readonly #batch: GrpcBlobBatch;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#batch = new GrpcBlobBatch(channel);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return (await this.#stat(digest, {}, options)) !== undefined;
  }

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    const found = await this.#stat(digest, { sendChunks: true }, options);
    return found?.chunks.map(({ digest, size }) => ({
      digest: B3Digest.fromBytes(digest),
      size: chunkSize(size),
    }));
  }

  async outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    const found = await this.#stat(digest, { sendBao: true }, options);
    return found && found.bao.length > 0 ? Outboard.parse(digest, found.bao) : undefined;
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options); // before anything is asked
    options.signal?.throwIfAborted();
    const isPart = start > 0 || end < Number.MAX_SAFE_INTEGER;
    if (isPart) {
      const chunks = await this.chunks(digest, options);
      if (chunks === undefined) return undefined;
      if (chunks.length > 0) return readChunked(chunks, this.#readChunk, options);
    }
    const download = await this.#download(digest, options);
    const contents = download?.contents();
    return contents && (isPart ? sliceStream(contents, start, end) : contents);
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const found = await this.#batch.has(digests, options);
    return found ?? (await hasOneByOne(this, digests, options));
  }

  async readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    const small = blobs.every(({ size }) => size <= GrpcBlobBatch.MAX_SIZE);
    const found = small ? await this.#batch.read(blobs, options) : undefined;
    return found ? ownBlobs(found) : await readOneByOne(this, blobs, options);
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    if (blobs.some(({ length }) => length > GrpcBlobBatch.MAX_SIZE)) {
      return await putOneByOne(this, blobs, options);
    }
    const hashed = blobs.map((data) => ({ digest: B3Digest.of(data), data }));
    const digests = hashed.map(({ digest }) => digest);
    const stored = await this.#batch.has(digests, options);
    const missing = hashed.filter((_, i) => !stored?.[i]);
    if (stored && (await this.#batch.put(missing, options))) return digests;
    return await putOneByOne(this, blobs, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    return new GrpcBlobWriter(this.#channel, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async #stat(
    digest: B3Digest,
    wanted: { sendChunks?: boolean; sendBao?: boolean },
    options?: AbortOptions,
  ): Promise<StatBlobResponse | undefined> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      const request = { digest: digest.bytes, ...wanted };
      return await StreamCall.unary(this.#channel, METHODS.stat, request, { signal });
    } catch (error) {
      const failure = fromConnectError(error, this.#cannot(`look up blob ${digest}`), signal);
      if (failure instanceof CastoreError && failure.code === "not_found") return undefined;
      throw failure;
    }
  }

  readonly #readChunk = async (
    { digest }: ChunkMeta,
    options?: AbortOptions,
  ): Promise<Uint8Array> => {
    const download = await this.#download(digest, options);
    if (download !== undefined) return await collectBytes(download.contents());
    throw new CastoreError(
      "data_loss",
      `${this.#cannot(`read chunk ${digest}`)}: the server lists it, but does not have it`,
    );
  };

  /** Begins to read a blob, or a chunk, by one call; `undefined` if the server does not have it. */
  async #download(digest: B3Digest, options?: AbortOptions): Promise<Download | undefined> {
    const action = this.#cannot(`read blob ${digest}`);
    const download = new Download(
      digest,
      () => {
        const request = { digest: digest.bytes };
        return StreamCall.dataStream(this.#channel, METHODS.read, request, options);
      },
      action,
      options?.signal,
    );
    return (await download.begin()) ? download : undefined;
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

function chunkSize(size: bigint): number {
  if (size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
  throw new CastoreError("data_loss", `Cannot use a chunk of ${size} bytes`);
}
