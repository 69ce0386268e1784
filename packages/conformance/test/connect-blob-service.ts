import { connect } from "node:net";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import {
  B3Digest,
  type BlobService,
  type BlobWriter,
  type ChunkMeta,
  collectBytes,
  type LentBlobs,
  MemoryBlobService,
  type ReadOptions,
} from "@tvix/castore";
import { BlobService as BlobServiceDescriptor } from "@tvix/proto/castore";

type AbortOptions = Pick<ReadOptions, "signal">;

/**
 * A blob service as a foreign client sees it: it calls through Connect, and has whatever is about a
 * service of ours, but not about what is sent, done by one in memory.
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

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    const call = this.#client.stat({ digest: digest.bytes, sendChunks: true });
    const found = await this.#orAbsent(call, options);
    return found?.chunks.map((chunk) => ({
      digest: B3Digest.fromBytes(chunk.digest),
      size: Number(chunk.size),
    }));
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const contents = await this.#orAbsent(this.#download(digest), options);
    if (contents === undefined) return undefined;
    const service = new MemoryBlobService();
    await service.putMany([contents]);
    return await service.read(digest, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return Promise.all(digests.map((digest) => this.has(digest, options)));
  }

  async readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    const contents = await Promise.all(
      blobs.map(async ({ digest, size }) => {
        const contents = await this.#orAbsent(this.#download(digest), options);
        return contents?.length === size ? contents : undefined;
      }),
    );
    return { contents, [Symbol.dispose]: () => undefined };
  }

  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]> {
    return Promise.all(blobs.map((data) => this.#upload([data], options)));
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

  async #download(digest: B3Digest): Promise<Uint8Array> {
    const { read } = this.#client;
    async function* contents() {
      for await (const { data } of read({ digest: digest.bytes })) yield data;
    }
    return await collectBytes(contents());
  }

  /** What a call gives; `undefined` where it is told that there is none. */
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
