import { create } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import {
  BlobChunkSchema,
  BlobService as BlobServiceDescriptor,
  type PutBlobResponse,
} from "@tvix/proto/castore";
import { concatBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import type { Channel } from "../grpc/channel.ts";
import { Upload } from "../grpc/upload.ts";
import { blake3 } from "../hash/blake3.ts";
import type { AbortOptions } from "../options.ts";
import { fromConnectError } from "../rpc/connect-error.ts";
import type { BlobService, BlobWriter, ChunkMeta, ReadOptions } from "./blob-service.ts";
import { readChunked, resolveRange } from "./chunked-reader.ts";

/** Up to this many bytes of a blob that the server does not cut are verified before any is passed on. */
const VERIFIED_AHEAD = 16 * 1024 * 1024;

/** How many bytes of a blob go into one message. */
const MESSAGE_BYTES = 1024 * 1024;

/**
 * Blobs in a gRPC server, verified as they arrive: a blob that the server cuts into chunks chunk by
 * chunk, any other as a whole. One that is not cut and longer than 16 MiB is passed on while it is
 * hashed: reading it fails at its end if it does not match.
 *
 * Disposes of its channel.
 */
export class GrpcBlobService implements BlobService {
  readonly #channel: Channel;
  readonly #client: Client<typeof BlobServiceDescriptor>;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#client = createClient(BlobServiceDescriptor, channel.transport);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return (await this.#stat(digest, false, options)) !== undefined;
  }

  chunks(digest: B3Digest, options?: AbortOptions): Promise<readonly ChunkMeta[] | undefined> {
    return this.#stat(digest, true, options);
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    resolveRange(Number.MAX_SAFE_INTEGER, options); // refused before anything is asked of the server
    const chunks = await this.#stat(digest, true, options);
    if (chunks === undefined) return undefined;
    if (chunks.length === 0) return this.#readUncut(digest, options);
    return readChunked(
      chunks,
      async (chunk, { signal } = {}) => {
        const parts: Uint8Array[] = [];
        for await (const part of this.#readUncut(chunk.digest, { signal })) parts.push(part);
        return concatBytes(parts);
      },
      options,
    );
  }

  openWriter(options?: AbortOptions): BlobWriter {
    return new GrpcBlobWriter(this.#client, this.#channel.address, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async #stat(
    digest: B3Digest,
    sendChunks: boolean,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      const response = await this.#client.stat({ digest: digest.bytes, sendChunks }, { signal });
      return response.chunks.map(({ digest, size }) => ({
        digest: B3Digest.fromBytes(digest),
        size: chunkSize(size),
      }));
    } catch (error) {
      const failure = fromConnectError(error, this.#cannot(`look up blob ${digest}`), signal);
      if (failure instanceof CastoreError && failure.code === "not_found") return undefined;
      throw failure;
    }
  }

  /** Reads a range of a blob, or a chunk, by one call. */
  async *#readUncut(digest: B3Digest, options: ReadOptions): AsyncGenerator<Uint8Array> {
    const { signal } = options;
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const hasher = blake3.createHasher();
    const held: Uint8Array[] = [];
    let heldBytes = 0;
    let position = 0;
    const wanted = (data: Uint8Array): Uint8Array | undefined => {
      const from = Math.max(start - position, 0);
      const part = data.subarray(from, Math.max(end - position, from));
      position += data.length;
      return part.length > 0 ? part : undefined;
    };
    const stop = new AbortController(); // ends the call when the reader does
    const callSignal = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    const request = { digest: digest.bytes };
    try {
      for await (const { data } of this.#client.read(request, { signal: callSignal })) {
        if (data.length === 0) continue;
        hasher.update(data);
        held.push(data);
        heldBytes += data.length;
        while (heldBytes > VERIFIED_AHEAD) {
          const first = held.shift()!;
          heldBytes -= first.length;
          const part = wanted(first);
          if (part !== undefined) yield part;
        }
      }
    } catch (error) {
      throw fromConnectError(error, this.#cannot(`read blob ${digest}`), signal);
    } finally {
      stop.abort();
    }
    const found = B3Digest.fromBytes(hasher.digest());
    if (!found.equals(digest)) {
      throw new CastoreError(
        "data_loss",
        `${this.#cannot(`read blob ${digest}`)}: what was sent has digest ${found}`,
      );
    }
    for (const data of held) {
      const part = wanted(data);
      if (part !== undefined) yield part;
    }
  }

  #cannot(action: string): string {
    return `Cannot ${action} at ${this.#channel.address}`;
  }
}

/** Sends one blob, and checks that the server stored just that. */
class GrpcBlobWriter implements BlobWriter {
  readonly #upload: Upload<{ data: Uint8Array }, PutBlobResponse>;
  readonly #address: string;
  readonly #hasher = blake3.createHasher();
  #disposed = false;
  #closed: Promise<B3Digest> | undefined;

  constructor(
    client: Client<typeof BlobServiceDescriptor>,
    address: string,
    options?: AbortOptions,
  ) {
    this.#address = address;
    this.#upload = new Upload(
      (messages, callOptions) => client.put(messages, callOptions),
      `Cannot put a blob at ${address}`,
      options?.signal,
    );
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#closed !== undefined || this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot write to blob writer: it has ended");
    }
    for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
      const part = data.subarray(at, at + MESSAGE_BYTES);
      this.#hasher.update(part);
      await this.#upload.send(create(BlobChunkSchema, { data: part }));
    }
  }

  close(): Promise<B3Digest> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed !== undefined) {
      await this.#closed.catch(() => undefined); // whoever called close() was told
      return;
    }
    if (this.#disposed) return;
    this.#disposed = true;
    this.#hasher.digest(); // frees what the portable implementation holds
    await this.#upload.cancel(new Error("The blob writer was disposed of"));
  }

  async #finish(): Promise<B3Digest> {
    if (this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot close blob writer: it has ended");
    }
    const sent = B3Digest.fromBytes(this.#hasher.digest());
    const { digest } = await this.#upload.finish();
    const stored = B3Digest.fromBytes(digest);
    if (stored.equals(sent)) return sent;
    throw new CastoreError(
      "data_loss",
      `Cannot put blob ${sent} at ${this.#address}: the server stored ${stored}`,
    );
  }
}

function chunkSize(size: bigint): number {
  if (size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size);
  throw new CastoreError("data_loss", `Cannot use a chunk of ${size} bytes`);
}
