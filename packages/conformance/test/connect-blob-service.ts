import { connect } from "node:net";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import {
  B3Digest,
  type BlobReader,
  type BlobService,
  type BlobStat,
  type BlobWriter,
  ChunkedBlobReader,
  ChunkList,
  type ChunkMeta,
  collectBytes,
  type FrameBatch,
  framesByCompressing,
  MemoryBlobService,
  type PutListOptions,
  putFramesByContents,
  putListByReading,
  type ReadOptions,
  statOneByOne,
} from "@tvix/castore";
import { BlobService as BlobServiceDescriptor } from "@tvix/proto/castore";

type AbortOptions = Pick<ReadOptions, "signal">;

/**
 * A blob service as a foreign client sees it: calls go through Connect. Local behaviour, such as ranges and argument
 * checks, is delegated to a service in memory.
 */
export class ConnectBlobService implements BlobService {
  readonly #sessions: Http2SessionManager;
  readonly #client: Client<typeof BlobServiceDescriptor>;

  /** @param address `grpc+unix:///socket` */
  constructor(address: string) {
    const path = new URL(address).pathname;
    const createConnection = () => connect(path);
    const baseUrl = "http://localhost";
    this.#sessions = new Http2SessionManager(baseUrl, undefined, {
      createConnection,
      maxSessionMemory: 1_000_000,
    });
    const transport = createGrpcTransport({ baseUrl, sessionManager: this.#sessions });
    this.#client = createClient(BlobServiceDescriptor, transport);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const found = await this.#orAbsent(this.#client.stat({ digest: digest.bytes }), options);
    return found !== undefined;
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return statOneByOne(this, digests, options);
  }

  /** Its list of chunks is the one from the server. */
  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const call = this.#client.stat({ digest: digest.bytes, sendChunks: true });
    const found = await this.#orAbsent(call, options);
    const copy = found && (await this.#copyOf(digest, options));
    const reader = await copy?.open(digest, options);
    if (reader === undefined || found!.chunks.length === 0) return reader;
    const chunks = found!.chunks.map(({ digest, size }) => ({
      digest: B3Digest.fromBytes(digest),
      size: Number(size),
    }));
    return new ChunkedBlobReader(digest, ChunkList.of(chunks), async ({ digest }, options) => {
      options?.signal?.throwIfAborted();
      return await this.#download(digest);
    });
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const copy = await this.#copyOf(digest, options);
    return await copy?.read(digest, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return Promise.all(digests.map((digest) => this.has(digest, options)));
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    return await Promise.all(
      blobs.map(async ({ digest, size }) => {
        const contents = await this.#orAbsent(this.#download(digest), options);
        return contents?.length === size ? contents : undefined;
      }),
    );
  }

  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]> {
    return Promise.all(blobs.map((data) => this.#upload([data], options)));
  }

  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    return putListByReading(this, digest, chunks, options);
  }

  putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    return putFramesByContents(this, batch, options);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return framesByCompressing(this, chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const service = new MemoryBlobService();
    const parts: Uint8Array[] = [];
    const writer = service.openWriter(options);
    let closed: Promise<B3Digest> | undefined;
    return {
      async write(data) {
        await writer.write(data);
        parts.push(new Uint8Array(data)); // it is only lent
      },
      close: () => {
        closed ??= writer.close().then(() => this.#upload(parts, options));
        return closed;
      },
      [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sessions.abort();
  }

  async #upload(parts: readonly Uint8Array[], options?: AbortOptions): Promise<B3Digest> {
    options?.signal?.throwIfAborted();
    async function* messages() {
      for (const data of parts) {
        yield { data };
        options?.signal?.throwIfAborted();
      }
    }
    const { digest } = await this.#client.put(messages());
    return B3Digest.fromBytes(digest);
  }

  /** Holds the blob in memory; `undefined` if there is none. */
  async #copyOf(digest: B3Digest, options?: AbortOptions): Promise<MemoryBlobService | undefined> {
    const contents = await this.#orAbsent(this.#download(digest), options);
    if (contents === undefined) return undefined;
    const service = new MemoryBlobService();
    await service.putMany([contents]);
    return service;
  }

  async #download(digest: B3Digest): Promise<Uint8Array> {
    const { read } = this.#client;
    async function* contents() {
      for await (const { data } of read({ digest: digest.bytes })) yield data;
    }
    return await collectBytes(contents());
  }

  /** Returns the response to a call; `undefined` for `not_found`. */
  async #orAbsent<T>(call: Promise<T>, options?: AbortOptions): Promise<T | undefined> {
    try {
      options?.signal?.throwIfAborted();
      return await call;
    } catch (error) {
      if (error instanceof ConnectError && error.code === Code.NotFound) return undefined;
      throw error;
    } finally {
      call.catch(() => undefined); // it is not awaited where the caller has given up
    }
  }
}
