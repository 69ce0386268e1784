import { type Blake3Hasher, blake3 } from "../hash/blake3.ts";
import { B3Digest } from "../model/digest.ts";
import type { CastoreError } from "../model/errors.ts";

/** The expected digest of a blob, and the error for another one. */
interface ExpectedBlob {
  readonly digest: B3Digest;
  readonly fail: (found: B3Digest) => CastoreError | Promise<CastoreError>;
}

/** Hashes a blob that arrives in pieces. Disposing frees memory. */
export class PieceHasher implements Disposable {
  #hasher: Blake3Hasher | undefined = blake3.createHasher();

  update(data: Uint8Array): void {
    this.#hasher?.update(data);
  }

  /** Tells whether the bytes so far are a blob. Nothing can be added afterwards. */
  isOf(digest: B3Digest): boolean {
    return B3Digest.fromBytes(this.#takeDigest()!).equals(digest);
  }

  /** Throws if the bytes so far are not the expected blob. Nothing can be added afterwards. */
  async expect({ digest, fail }: ExpectedBlob): Promise<void> {
    const found = B3Digest.fromBytes(this.#takeDigest()!);
    if (!found.equals(digest)) throw await fail(found);
  }

  /** Yields the rest of a blob; the last piece only if the whole blob matches. */
  async *verifyRest(
    rest: AsyncIterable<Uint8Array>,
    expected: ExpectedBlob,
  ): AsyncGenerator<Uint8Array> {
    let held: Uint8Array | undefined;
    for await (const data of rest) {
      if (held !== undefined) yield held;
      this.update(data);
      held = data;
    }
    await this.expect(expected);
    if (held !== undefined) yield held;
  }

  [Symbol.dispose](): void {
    this.#takeDigest();
  }

  #takeDigest(): Uint8Array | undefined {
    const digest = this.#hasher?.digest();
    this.#hasher = undefined;
    return digest;
  }
}

/**
 * Verifies a stream of a whole blob against its digest. If they differ, the last piece is withheld: a reader cannot
 * take a wrong stream for complete.
 *
 * @param expected.size length of the stream in bytes
 * @param expected.fail creates the error for another digest
 */
export async function* verifyBlob(
  stream: AsyncIterable<Uint8Array>,
  expected: ExpectedBlob & { size: number },
): AsyncGenerator<Uint8Array> {
  using hasher = new PieceHasher();
  let size = 0;
  for await (const data of stream) {
    hasher.update(data);
    size += data.length;
    if (size === expected.size) await hasher.expect(expected);
    yield data;
  }
}
