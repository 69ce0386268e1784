import { BlobService as BlobServiceDescriptor } from "@tvix/proto/castore";
import type { BlobWriter } from "../../blobservice/blob-service.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { BlobHasher } from "../../hash/blob-hasher.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Channel } from "../transport/channel.ts";
import { frameData } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { Upload } from "../transport/upload.ts";
import type { CallGatherer } from "./call-gatherer.ts";
import type { HashedBlob } from "./grpc-blob-batch.ts";

/** How many bytes of a blob go into one message at most. */
const MESSAGE_BYTES = 1024 * 1024;

/** Up to this many bytes are held back: small blobs are sent when they are closed, those of one moment together. */
const HELD_BYTES = 64 * 1024;

/** Up to this many bytes are kept to be sent again to a server that restarts. */
const KEPT_BYTES = 1024 * 1024;

/** Sends one blob, and checks that the server stored just that. */
export class GrpcBlobWriter implements BlobWriter {
  readonly #channel: Channel;
  readonly #small: CallGatherer<HashedBlob, boolean>;
  readonly #options: AbortOptions;
  readonly #action: string;
  /** What a blob is sent by that is too long to be held. */
  #long: LongBlob | undefined;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #disposed = false;
  #closed: Promise<B3Digest> | undefined;

  /** @param small stores blobs that are held whole, and tells whether the server takes batches: it stores nothing if not */
  constructor(
    channel: Channel,
    small: CallGatherer<HashedBlob, boolean>,
    options: AbortOptions = {},
  ) {
    this.#channel = channel;
    this.#small = small;
    this.#options = options;
    this.#action = `Cannot put a blob at ${channel.address}`;
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#closed !== undefined || this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot write to blob writer: it has ended");
    }
    this.#options.signal?.throwIfAborted();
    this.#long?.upload.throwIfOver();
    for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
      const part = data.subarray(at, at + MESSAGE_BYTES);
      if (this.#heldBytes + part.length <= HELD_BYTES) {
        this.#held.push(new Uint8Array(part)); // they are the caller's
        this.#heldBytes += part.length;
        continue;
      }
      this.#long ??= this.#begin();
      const frame = this.#takeHeld(this.#long.hasher, part);
      await this.#long.upload.send(frame);
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
    this.#long?.hasher.digest(); // frees what the portable implementation holds
    await this.#long?.upload.cancel();
  }

  async #finish(): Promise<B3Digest> {
    if (this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot close blob writer: it has ended");
    }
    if (this.#long === undefined) {
      const data = concatBytes(this.#held);
      const digest = blake3Digest(data);
      if (await this.#small.ask({ digest, data }, this.#options)) return digest;
    }
    const { upload, hasher } = this.#long ?? this.#begin();
    const last = this.#heldBytes > 0 ? this.#takeHeld(hasher) : undefined;
    const sent = hasher.digest();
    const { digest } = await upload.finish(last);
    const stored = received(this.#action, () => B3Digest.fromBytes(digest));
    if (stored.equals(sent)) return sent;
    throw new CastoreError("data_loss", `${this.#action}: sent was ${sent}, stored is ${stored}`);
  }
  #begin(): LongBlob {
    const { put } = BlobServiceDescriptor.method;
    const options = { ...this.#options, keptBytes: KEPT_BYTES };
    const upload = new Upload(this.#channel, put, this.#action, options);
    return { upload, hasher: new BlobHasher() };
  }

  /** Hashes and frames what is held and what follows it. */
  #takeHeld(hasher: BlobHasher, ...further: readonly Uint8Array[]): Uint8Array {
    const parts = [...this.#held, ...further];
    this.#held = [];
    this.#heldBytes = 0;
    for (const part of parts) hasher.update(part);
    return frameData(parts);
  }
}

/** A blob that is sent while it is written. */
interface LongBlob {
  readonly upload: Upload<typeof BlobServiceDescriptor.method.put>;
  readonly hasher: BlobHasher;
}
