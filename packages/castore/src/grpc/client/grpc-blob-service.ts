import { BlobService as BlobServiceDescriptor, type StatBlobResponse } from "@tvix/proto/castore";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FrameBatch,
  PutListOptions,
  ReadOptions,
  StoredBlob,
} from "../../blobservice/blob-service.ts";
import { ChunkList, type ChunkMeta } from "../../blobservice/chunk-list.ts";
import { ChunkedBlobReader, readChunked } from "../../blobservice/chunked-reader.ts";
import type { FileStore } from "../../blobservice/file-store.ts";
import {
  expectFrameEach,
  framesByCompressing,
  putFramesByContents,
} from "../../blobservice/frames.ts";
import {
  hasOneByOne,
  putOneByOne,
  readOneByOne,
  statOneByOne,
} from "../../blobservice/one-by-one.ts";
import { OutboardCache } from "../../blobservice/outboard-cache.ts";
import { putListByReading } from "../../blobservice/put-list.ts";
import type { OutboardSource } from "../../blobservice/verified-range.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { collectBytes, copyBytes, takeAtMost } from "../../bytes/byte-string.ts";
import { sliceStream } from "../../bytes/slice-stream.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { Outboard } from "../../hash/outboard.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError, hasCode } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS, MAX_BATCH_BYTES, MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { resolveRange } from "../../model/range.ts";
import type { Channel } from "../transport/channel.ts";
import { received } from "../transport/received.ts";
import { Retries } from "../transport/retry.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { CallGatherer } from "./call-gatherer.ts";
import { decodeChunks } from "./chunks-of-stat.ts";
import { FrameVerifier } from "./frame-verifier.ts";
import { GrpcBlobBatch, type HashedBlob } from "./grpc-blob-batch.ts";
import { GrpcBlobWriter } from "./grpc-blob-writer.ts";
import { GrpcChunkBatch } from "./grpc-chunk-batch.ts";
import {
  callOf,
  type DataCall,
  Download,
  type DownloadOptions,
  passingBy,
} from "./grpc-download.ts";
import { GrpcEachRead } from "./grpc-each-read.ts";
import { GrpcFileStore } from "./grpc-file-store.ts";

/** How many bytes of outboards are remembered: those of 4 GB of blobs. */
const OUTBOARD_BYTES = 16 * 1024 * 1024;

const NONE = ChunkList.of([]);

/** Blobs up to this many bytes are read together, if several are read at the same time. */
const SMALL_BYTES = 64 * 1024;

const METHODS = BlobServiceDescriptor.method;

/**
 * Blobs in a gRPC server, verified as they arrive. Nothing of a blob of up to 4 MiB is passed on before
 * all of it is found to match its digest; a longer one is passed on while it is hashed, and reading it
 * fails at its end if it does not match. A part of a blob is verified by the chunks that the server
 * lists, which `verifiedRange` need not believe.
 *
 * A whole blob is read by one call, which is faster than one for each chunk. Where it breaks off, those chunks are read
 * that are missing, or, of a blob that the server does not cut, all of it again, as {@link Retries} allows. What a server sends against the contract is `data_loss`, or `internal` if it is nothing at all.
 *
 * Disposes of its channel.
 */
export class GrpcBlobService implements BlobService, OutboardSource {
  readonly files: FileStore;
  readonly #channel: Channel;
  readonly #batch: GrpcBlobBatch;
  readonly #eachRead: GrpcEachRead;
  readonly #chunkBatch: GrpcChunkBatch;
  readonly #verifier = new FrameVerifier();
  readonly #smallPuts = new CallGatherer<HashedBlob, boolean>({
    call: async (blobs, options) => {
      const takesBatches = await this.#batch.put(blobs, options);
      return blobs.map(() => takesBatches);
    },
    bytesOf: ({ data }) => data.length,
  });
  readonly #smallReads = new CallGatherer<B3Digest, Uint8Array | undefined>({
    call: async (digests, options) =>
      (await this.#batch.readUpTo(SMALL_BYTES, digests, options)) ?? digests.map(() => undefined),
    bytesOf: () => SMALL_BYTES,
  });
  /** How many reads of whole blobs have not begun to give bytes. */
  #beginning = 0;
  readonly #outboards = new OutboardCache(async (digest, options) => {
    const found = await this.#stat(digest, { sendBao: true }, options);
    if (found === undefined || found.bao.length === 0) return undefined;
    return Outboard.parse(digest.copy(), copyBytes(found.bao)); // they are kept
  }, OUTBOARD_BYTES);

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#batch = new GrpcBlobBatch(channel);
    this.#eachRead = new GrpcEachRead(channel);
    this.#chunkBatch = new GrpcChunkBatch(channel);
    this.files = new GrpcFileStore(this, this.#chunkBatch);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return (await this.#stat(digest, {}, options)) !== undefined;
  }

  async statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    const found = await this.#batch.stat(digests, options);
    return found ?? (await statOneByOne(this, digests, options));
  }

  /**
   * Opens a blob by one call to a server of ours. Of another one, a blob that it does not cut is read, which is the only
   * way to learn its length.
   */
  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const signal = options?.signal;
    let list = await this.#chunks(digest, { signal });
    if (list === "uncut") list = await this.#uncut(digest, { signal });
    const fetch = (chunk: ChunkMeta, { signal }: AbortOptions = {}) =>
      this.#readChunk(chunk, { retries: new Retries(this.#channel, { signal }), signal });
    return list && new ChunkedBlobReader(digest, list, fetch);
  }

  async outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    return await this.#outboards.get(digest, options);
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options); // before anything is asked
    options.signal?.throwIfAborted();
    const isPart = start > 0 || end < Number.MAX_SAFE_INTEGER;
    if (isPart) {
      const chunks = await this.#chunks(digest, options);
      if (chunks === undefined) return undefined;
      if (chunks !== "uncut") return this.#readChunks(chunks, "retried", options);
    }
    const contents = await this.#readWhole(digest, options.signal);
    return contents && (isPart ? sliceStream(contents, start, end) : contents);
  }

  /** Reads a blob by a call of its own, or, if it is small, with others that are read at the same time. */
  async #readWhole(
    digest: B3Digest,
    signal: AbortSignal | undefined,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    this.#beginning += 1;
    try {
      if (this.#beginning > 1) {
        const small = await this.#smallReads.ask(digest, { signal });
        if (small !== undefined) return once(copyBytes(small)); // it shares its memory with the others
      }
      const retries = new Retries(this.#channel, { signal });
      const download = await this.#download(digest, { retries, signal });
      return download?.contents();
    } finally {
      this.#beginning -= 1;
    }
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const found = await this.#batch.has(digests, options);
    return found ?? (await hasOneByOne(this, digests, options));
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const small = blobs.every(({ size }) => size <= GrpcBlobBatch.MAX_SIZE);
    const found = small ? await this.#batch.read(blobs, options) : undefined;
    return found ?? (await readOneByOne(this, blobs, options));
  }

  async readManyStored(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[]> {
    options?.signal?.throwIfAborted();
    if (blobs.length === 1) {
      const found = await this.#eachRead.read(blobs[0]!, options);
      if (found !== "elsewhere") return [found];
    }
    const small = blobs.every(({ size }) => size <= GrpcBlobBatch.MAX_SIZE);
    const found = small ? await this.#batch.readStored(blobs, options) : undefined;
    if (found !== undefined) return found;
    const contents = await this.readMany(blobs, options);
    return contents.map((data) => data && { contents: data });
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    if (blobs.some(({ length }) => length > GrpcBlobBatch.MAX_SIZE)) {
      return await putOneByOne(this, blobs, options);
    }
    const hashed = blobs.map((data) => ({ digest: blake3Digest(data), data }));
    const digests = hashed.map(({ digest }) => digest);
    const stored = await this.#batch.has(digests, options);
    const missing = hashed.filter((_, i) => !stored?.[i]);
    if (stored && (await this.#batch.put(missing, options))) return digests;
    return await putOneByOne(this, blobs, options);
  }

  /** The server reads the chunks: it believes nobody that they are `proven`. */
  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    if (await this.#chunkBatch.putList(digest, chunks, options)) return;
    await putListByReading(this, digest, chunks, options);
  }

  /** Whether the server does, as long as it is not known not to. */
  get keepsFrames(): boolean {
    return !this.#chunkBatch.lacksFrames;
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    const { chunks, frames, blobs } = batch;
    const fits = chunks.length <= 1 || chunks.size <= MAX_BATCH_BYTES;
    const isShort = chunks.length + blobs.length <= MAX_BATCH_BLOBS;
    if (fits && isShort && (await this.#chunkBatch.takesFrames(options))) {
      expectFrameEach(chunks, frames);
      await this.#chunkBatch.putFrames(batch, options);
    } else {
      await putFramesByContents(this, batch, options);
    }
  }

  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    options?.signal?.throwIfAborted();
    if (!this.#chunkBatch.lacksLists) {
      let hasBegun = false;
      try {
        for await (const frame of this.#chunkBatch.frames(chunks, options)) {
          hasBegun = true;
          yield frame;
        }
        return;
      } catch (error) {
        if (hasBegun || !hasCode(error, "unimplemented")) throw error;
      }
    }
    yield* framesByCompressing(this, chunks, options);
  }

  /** Throws CastoreError `unimplemented` where the server stores no frames, or does not tell. */
  async frameSizes(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array> {
    return await this.#chunkBatch.frameSizes(chunks, options);
  }

  verifiedFrames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<readonly Uint8Array[]> {
    const read = (part: ChunkList) => this.#chunkBatch.frames(part, options);
    return this.#verifier.verified(chunks, read, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    return new GrpcBlobWriter(this.#channel, this.#smallPuts, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async #stat(
    digest: B3Digest,
    wanted: { sendBao?: boolean },
    options?: AbortOptions,
  ): Promise<StatBlobResponse | undefined> {
    const request = { digest: digest.bytes, ...wanted };
    return await this.#lookUp(digest, options, () =>
      StreamCall.unary(this.#channel, METHODS.stat, request, options),
    );
  }

  /** Makes a call for a blob; `undefined` if the server does not have it. */
  async #lookUp<T>(
    digest: B3Digest,
    options: AbortOptions | undefined,
    call: () => Promise<T>,
  ): Promise<T | undefined> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      const failure = fromRpcError(error, this.#cannot(`look up blob ${digest}`), signal);
      if (hasCode(failure, "not_found")) return undefined;
      throw failure;
    }
  }

  /** The chunks that the server lists; `"uncut"` for a blob of which it lists none. */
  async #chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<ChunkList | "uncut" | undefined> {
    const list = await this.#chunkBatch.list(digest, options);
    if (list !== "unknown") return list;
    const request = { digest: digest.bytes, sendChunks: true };
    const action = this.#cannot(`look up blob ${digest}`);
    return await this.#lookUp(digest, options, async () => {
      const message = await StreamCall.unaryEncoded(this.#channel, METHODS.stat, request, options);
      const chunks = await decodeChunks(message, action, options);
      return chunks.length === 0 ? "uncut" : received(action, () => expectItself(digest, chunks));
    });
  }

  async #uncut(digest: B3Digest, options: AbortOptions): Promise<ChunkList | undefined> {
    const stream = await this.read(digest, options);
    if (stream === undefined) return undefined;
    const contents = await takeAtMost(stream, MAX_CHUNK_BYTES);
    if (contents === undefined) {
      throw new CastoreError(
        "unimplemented",
        `${this.#cannot(`open blob ${digest}`)}: the server does not cut it, expected at most ${MAX_CHUNK_BYTES} bytes`,
      );
    }
    return contents.length > 0 ? ChunkList.of([{ digest, size: contents.length }]) : NONE;
  }

  /** @param calls whether the call for a chunk is made again where it breaks off */
  #readChunks(
    chunks: ChunkList,
    calls: "retried" | "once",
    options?: ReadOptions,
  ): AsyncIterable<Uint8Array> {
    const read = (chunk: ChunkMeta, { signal }: AbortOptions = {}) => {
      const retries = calls === "retried" ? new Retries(this.#channel, { signal }) : undefined;
      return this.#readChunk(chunk, { retries, signal });
    };
    return readChunked(chunks, read, options);
  }

  async #readChunk(
    { digest, size }: ChunkMeta,
    options: Pick<DownloadOptions, "retries" | "signal">,
  ): Promise<Uint8Array> {
    const download = await this.#download(digest, { ...options, size });
    if (download !== undefined) return await collectBytes(download.contents());
    throw new CastoreError(
      "data_loss",
      `${this.#cannot(`read chunk ${digest}`)}: the server lists it, but does not have it`,
    );
  }

  /** Begins to read a blob, or a chunk, by one call; `undefined` if the server does not have it. */
  async #download(
    digest: B3Digest,
    options: Pick<DownloadOptions, "size" | "retries" | "signal">,
  ): Promise<Download | undefined> {
    const action = this.#cannot(`read blob ${digest}`);
    const start = (offset: number) => this.#start(digest, offset, { signal: options.signal });
    const download = new Download(digest, { ...options, start, action });
    return (await download.begin()) ? download : undefined;
  }

  /** Begins a call that gives a blob, or what comes behind so many bytes of it. */
  async #start(digest: B3Digest, offset: number, options: AbortOptions): Promise<DataCall> {
    // Nobody but a list of chunks can tell where to go on. Without one, the beginning is passed by.
    const chunks = offset > 0 ? await this.#chunks(digest, options) : "uncut";
    if (chunks === undefined) {
      throw new CastoreError("not_found", `${this.#cannot(`read blob ${digest}`)}: it is gone`);
    }
    if (chunks !== "uncut") {
      return callOf(this.#readChunks(chunks, "once", { ...options, offset }));
    }
    const request = { digest: digest.bytes };
    const call = await StreamCall.dataStream(this.#channel, METHODS.read, request, options);
    return offset > 0 ? passingBy(call, offset) : call;
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

/** Refuses a list whose only chunk is another blob. */
function expectItself(digest: B3Digest, chunks: ChunkList): ChunkList {
  if (chunks.length !== 1 || chunks.digestAt(0).equals(digest)) return chunks;
  throw new CastoreError(
    "data_loss",
    `expected the blob as its only chunk, found ${chunks.digestAt(0)}`,
  );
}

async function* once(data: Uint8Array): AsyncGenerator<Uint8Array> {
  if (data.length > 0) yield data;
}
