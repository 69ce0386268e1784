import { BlobService as BlobServiceDescriptor } from "@tvix/proto/castore";
import type { BlobWriter } from "../../blobservice/blob-service.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { BlobHasher } from "../../hash/blob-hasher.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Channel } from "../transport/channel.ts";
import { frameData } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { Upload } from "../transport/upload.ts";

/** How many bytes of a blob go into one message at most. */
const MESSAGE_BYTES = 1024 * 1024;

/** Up to this many bytes are held back to go into one message: small blobs are sent at once, when closed. */
const HELD_BYTES = 64 * 1024;

/** Up to this many bytes are kept to be sent again to a server that restarts. */
const KEPT_BYTES = 1024 * 1024;

/** Sends one blob, and checks that the server stored just that. */
export class GrpcBlobWriter implements BlobWriter {
  readonly #action: string;
  readonly #upload: Upload<typeof BlobServiceDescriptor.method.put>;
  readonly #hasher = new BlobHasher();
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #disposed = false;
  #closed: Promise<B3Digest> | undefined;

  constructor(channel: Channel, options?: AbortOptions) {
    this.#action = `Cannot put a blob at ${channel.address}`;
    const { put } = BlobServiceDescriptor.method;
    this.#upload = new Upload(channel, put, this.#action, { ...options, keptBytes: KEPT_BYTES });
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#closed !== undefined || this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot write to blob writer: it has ended");
    }
    this.#upload.throwIfOver();
    for (let at = 0; at < data.length; at += MESSAGE_BYTES) {
      const part = data.subarray(at, at + MESSAGE_BYTES);
      if (this.#heldBytes + part.length <= HELD_BYTES) {
        const copy = new Uint8Array(part); // they are the caller's
        this.#hasher.update(copy);
        this.#held.push(copy);
        this.#heldBytes += copy.length;
        continue;
      }
      this.#hasher.update(part);
      const frame = frameData([...this.#held, part]);
      this.#held = [];
      this.#heldBytes = 0;
      await this.#upload.send(frame);
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
    await this.#upload.cancel();
  }

  async #finish(): Promise<B3Digest> {
    if (this.#disposed) {
      throw new CastoreError("invalid_argument", "Cannot close blob writer: it has ended");
    }
    const sent = this.#hasher.digest();
    const last = this.#heldBytes > 0 ? frameData(this.#held) : undefined;
    const { digest } = await this.#upload.finish(last);
    const stored = received(this.#action, () => B3Digest.fromBytes(digest));
    if (stored.equals(sent)) return sent;
    throw new CastoreError("data_loss", `${this.#action}: sent was ${sent}, stored is ${stored}`);
  }
}
