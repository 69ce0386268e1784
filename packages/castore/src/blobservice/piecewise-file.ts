import type { SourceFile } from "../disk/source-file.ts";
import { type Blake3Hasher, blake3 } from "../hash/blake3.ts";
import { B3Digest } from "../model/digest.ts";
import { type ChunkList, ChunkListBuilder } from "./chunk-list.ts";
import type { LargeFile } from "./file-store.ts";

/** Where a piece of a file ends. */
export interface PieceRead {
  /** Length of the piece in bytes, to the end of its last chunk. The next piece starts there. */
  readonly length: number;
  /** Whether the file ends with it. */
  readonly isLast: boolean;
}

/** A piece of a file that was read and cut, and is being stored. */
export interface Piece extends PieceRead {
  readonly contents: Uint8Array;
  /** Its chunks, packed, and what resolves when they are durable. */
  readonly prepared: Promise<{ list: Uint8Array; stored: readonly Promise<void>[] }>;
  /** Gives up the contents. */
  readonly release: () => void;
}

/** A large file that lanes read in pieces: while one is compressed, the next is read. */
export class PiecewiseFile implements LargeFile {
  readonly #file: SourceFile;
  readonly #readPiece: (position: number) => Promise<Piece>;
  readonly #commitBlob: (digest: B3Digest, chunks: ChunkList) => Promise<void>;
  readonly #hasher: Blake3Hasher = blake3.createHasher();
  /** The list as far as pieces were prepared, in their order. */
  #listed: Promise<ChunkListBuilder> = Promise.resolve(new ChunkListBuilder());
  #failure: { readonly error: unknown } | undefined;
  /** Parts of pieces that are not durable yet. */
  readonly #storing = new Set<Promise<void>>();

  /** @param work.commitBlob commits the blob, whose chunks are durable then */
  constructor(
    file: SourceFile,
    work: {
      readPiece: (position: number) => Promise<Piece>;
      commitBlob: (digest: B3Digest, chunks: ChunkList) => Promise<void>;
    },
  ) {
    this.#file = file;
    this.#readPiece = work.readPiece;
    this.#commitBlob = work.commitBlob;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    let next: Promise<Piece> | undefined = this.#readPiece(0);
    try {
      for (let position = 0; next !== undefined; ) {
        const { contents, isLast, prepared, release }: Piece = await next;
        position += contents.length;
        next = isLast ? undefined : this.#readPiece(position);
        next?.catch(() => undefined); // awaited in its turn
        this.#add(prepared);
        try {
          if (isLast) this.#file.expectUnchanged(position);
          this.#throwIfFailed();
          this.#hasher.update(contents);
          if (contents.length > 0) yield contents;
        } finally {
          release();
        }
      }
    } catch (error) {
      this.#hasher.digest(); // an unfinished one keeps memory
      throw this.#file.readError(error);
    } finally {
      const abandoned = await next?.catch(() => undefined); // a lane reads from the file until then
      abandoned?.release();
      this.#file[Symbol.dispose]();
    }
  }

  finish(): { digest: B3Digest; stored: Promise<void> } {
    const digest = B3Digest.fromBytes(this.#hasher.digest());
    const stored = this.#commit(digest);
    stored.catch(() => undefined); // handled where it is awaited
    return { digest, stored };
  }

  async #commit(digest: B3Digest): Promise<void> {
    const builder = await this.#listed;
    await Promise.all(this.#storing);
    this.#throwIfFailed();
    await this.#commitBlob(digest, builder.finish());
  }

  /** Adds the chunks of a piece to the list. */
  #add(prepared: Piece["prepared"]): void {
    const before = this.#listed;
    this.#listed = prepared.then(async ({ list, stored }) => {
      for (const promise of stored) {
        const settled: Promise<void> = promise
          .catch((error: unknown) => this.#fail(error))
          .finally(() => this.#storing.delete(settled));
        this.#storing.add(settled);
      }
      const builder = await before;
      builder.append(list);
      return builder;
    });
    this.#listed.catch((error) => this.#fail(error));
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
