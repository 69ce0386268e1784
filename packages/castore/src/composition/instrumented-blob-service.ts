import type { Attributes } from "@opentelemetry/api";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  PutListOptions,
  ReadOptions,
} from "../blobservice/blob-service.ts";
import type { ChunkList, ChunkMeta } from "../blobservice/chunk-list.ts";
import type { OutboardSource } from "../blobservice/verified-range.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { type StoreCall, StoreCalls } from "./store-calls.ts";

const BYTES = { attribute: "tvix.bytes", of: ({ length }: Uint8Array) => length };

/** A blob service with a name, which its errors and the spans of its calls tell. */
export class FollowedBlobService implements BlobService, OutboardSource {
  readonly #inner: BlobService & Partial<OutboardSource>;
  readonly #calls: StoreCalls;
  #disposed: Promise<void> | undefined;

  constructor(inner: BlobService & Partial<OutboardSource>, name: string) {
    this.#inner = inner;
    this.#calls = new StoreCalls("BlobService", name);
  }

  has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return this.#calls.run("has", about(digest), options, () => this.#inner.has(digest, options));
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    const call = () => this.#inner.statMany(digests, options);
    return this.#calls.run("statMany", count(digests), options, call);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const call = () => this.#inner.open(digest, options);
    const reader = await this.#calls.run("open", about(digest), options, call);
    return reader && new FollowedBlobReader(this.#calls, reader);
  }

  async outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    const inner = this.#inner;
    if (inner.outboard === undefined) return undefined;
    const call = () => inner.outboard!(digest, options);
    return await this.#calls.run("outboard", about(digest), options, call);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const call = this.#calls.begin("read", about(digest), options);
    const stream = await call.run(() => this.#inner.read(digest, options));
    if (stream !== undefined) return call.follow(stream, BYTES);
    call.end();
    return undefined;
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const call = () => this.#inner.hasMany(digests, options);
    return this.#calls.run("hasMany", count(digests), options, call);
  }

  readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const call = () => this.#inner.readMany(blobs, options);
    return this.#calls.run("readMany", count(blobs), options, call);
  }

  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]> {
    const call = () => this.#inner.putMany(blobs, options);
    return this.#calls.run("putMany", count(blobs), options, call);
  }

  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    const call = () => this.#inner.putList(digest, chunks, options);
    return this.#calls.run("putList", about(digest), options, call);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    const call = () => this.#inner.frames(chunks, options);
    return this.#calls.stream("frames", count(chunks), options, call, BYTES);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const call = this.#calls.begin("openWriter", () => ({}), options);
    return new FollowedBlobWriter(
      call,
      call.runSync(() => this.#inner.openWriter(options)),
    );
  }

  /** Disposes of the service, once. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= Promise.resolve(this.#inner[Symbol.asyncDispose]());
    return this.#disposed;
  }
}

/** Reads, of which each is a call. */
class FollowedBlobReader implements BlobReader {
  readonly digest: B3Digest;
  readonly size: number;
  readonly chunks: ChunkList;
  readonly #calls: StoreCalls;
  readonly #inner: BlobReader;

  constructor(calls: StoreCalls, inner: BlobReader) {
    this.digest = inner.digest;
    this.size = inner.size;
    this.chunks = inner.chunks;
    this.#calls = calls;
    this.#inner = inner;
  }

  read(offset: number, length: number, options?: AbortOptions): Promise<Uint8Array> {
    const call = () => this.#inner.read(offset, length, options);
    return this.#calls.run("readPart", about(this.digest), options, call);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}

/** A call that is over when the blob is stored, dropped or refused. */
class FollowedBlobWriter implements BlobWriter {
  readonly #call: StoreCall;
  readonly #inner: BlobWriter;
  #bytes = 0;

  constructor(call: StoreCall, inner: BlobWriter) {
    this.#call = call;
    this.#inner = inner;
  }

  async write(data: Uint8Array): Promise<void> {
    await this.#call.run(() => this.#inner.write(data));
    this.#bytes += data.length;
  }

  async close(): Promise<B3Digest> {
    const digest = await this.#call.run(() => this.#inner.close());
    this.#call.end({ "tvix.digest": digest.toString(), "tvix.bytes": this.#bytes });
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#call.run(async () => await this.#inner[Symbol.asyncDispose]());
    this.#call.end({ "tvix.bytes": this.#bytes });
  }
}

function about(digest: B3Digest): () => Attributes {
  return () => ({ "tvix.digest": digest.toString() });
}

function count({ length }: { readonly length: number }): () => Attributes {
  return () => ({ "tvix.count": length });
}
