import { create } from "@bufbuild/protobuf";
import {
  type ReadBlobsResponse_Blob,
  ReadBlobsResponse_BlobSchema,
  type ReadEachRequest,
  type ReadEachResponse,
  ReadEachResponseSchema,
} from "@tvix/proto/castore";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import type { ChunkMeta } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { freeMemory } from "../../bytes/free-memory.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_EACH_BYTES, MAX_EACH_READS } from "../../model/limits.ts";

/** Reads a blob in its stored form; `undefined` if it is absent or of another length. */
type ReadOne = (blob: ChunkMeta, options: AbortOptions) => Promise<StoredBlob | undefined>;

/** A read that was started, until its answer was taken. */
interface Running {
  readonly cancelling: AbortController;
  readonly size: number;
}

/** What a read has come to; `"elsewhere"` if it has to be asked for by another call. */
interface Answer {
  readonly id: number;
  readonly blob: StoredBlob | undefined | "elsewhere";
}

/** Answers the requests of one call, each as soon as its blob is read. */
export class EachRead {
  readonly #read: ReadOne;
  readonly #running = new Map<number, Running>();
  readonly #answers: Answer[] = [];
  #bytes = 0;
  #hasEnded = false;
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;

  constructor(read: ReadOne) {
    this.#read = read;
  }

  /** Yields the responses, until the requests have ended and all are answered. Ending early cancels what is being read. */
  async *responses(requests: AsyncIterable<ReadEachRequest>): AsyncGenerator<ReadEachResponse> {
    void this.#take(requests);
    try {
      for (;;) {
        for (let answer = this.#answers.shift(); answer; answer = this.#answers.shift()) {
          const { id, blob } = answer;
          yield create(ReadEachResponseSchema, { id, blob: messageOf(blob) });
          this.#end(id);
          // It was encoded, which copies it.
          if (typeof blob === "object" && blob.memory !== undefined) freeMemory([blob.memory]);
        }
        if (this.#failure !== undefined) throw this.#failure.error;
        if (this.#hasEnded && this.#running.size === 0) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      const reason = new DOMException("the call has ended", "AbortError");
      for (const { cancelling } of this.#running.values()) cancelling.abort(reason);
    }
  }

  async #take(requests: AsyncIterable<ReadEachRequest>): Promise<void> {
    try {
      for await (const { id, blob } of requests) {
        if (blob === undefined) this.#cancel(id);
        else this.#start(id, { digest: B3Digest.fromBytes(blob.digest), size: Number(blob.size) });
      }
      this.#hasEnded = true;
    } catch (error) {
      this.#failure = { error };
    }
    this.#wake();
  }

  #start(id: number, blob: ChunkMeta): void {
    if (this.#running.has(id)) {
      const reason = `expected a name that no other read has, found ${id}`;
      throw new CastoreError("invalid_argument", `Cannot read blob ${blob.digest}: ${reason}`);
    }
    if (this.#running.size >= MAX_EACH_READS || this.#bytes + blob.size > MAX_EACH_BYTES) {
      this.#answer({ id, blob: "elsewhere" });
      return;
    }
    const running = { cancelling: new AbortController(), size: blob.size };
    this.#running.set(id, running);
    this.#bytes += blob.size;
    const answer = (found: Answer["blob"]) => {
      if (this.#running.get(id) === running) this.#answer({ id, blob: found });
    };
    this.#read(blob, { signal: running.cancelling.signal }).then(answer, () => answer("elsewhere"));
  }

  #cancel(id: number): void {
    this.#running.get(id)?.cancelling.abort(new DOMException("cancelled", "AbortError"));
    this.#end(id);
    this.#wake();
  }

  #end(id: number): void {
    this.#bytes -= this.#running.get(id)?.size ?? 0;
    this.#running.delete(id);
  }

  #answer(answer: Answer): void {
    this.#answers.push(answer);
    this.#wake();
  }
}

function messageOf(blob: Answer["blob"]): ReadBlobsResponse_Blob | undefined {
  if (blob === "elsewhere") return undefined;
  return create(ReadBlobsResponse_BlobSchema, blob ? { present: true, ...blob } : {});
}
