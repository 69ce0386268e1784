import { B3Digest } from "../digest.ts";
import type { CastoreError } from "../errors.ts";
import { blake3 } from "../hash/blake3.ts";

/**
 * Checks the bytes of a whole blob against its digest. The last of them are not handed out if it is another, so
 * that nobody takes it for the blob.
 *
 * @param expected.size how many bytes the stream gives
 * @param expected.fail makes the error to throw for another digest
 */
export async function* verifyBlob(
  stream: AsyncIterable<Uint8Array>,
  expected: {
    digest: B3Digest;
    size: number;
    fail: (found: B3Digest) => CastoreError | Promise<CastoreError>;
  },
): AsyncGenerator<Uint8Array> {
  const hasher = blake3.createHasher();
  let size = 0;
  let isHashed = false;
  try {
    for await (const data of stream) {
      hasher.update(data);
      size += data.length;
      if (size === expected.size) {
        isHashed = true;
        const found = B3Digest.fromBytes(hasher.digest());
        if (!found.equals(expected.digest)) throw await expected.fail(found);
      }
      yield data;
    }
  } finally {
    if (!isHashed) hasher.digest(); // frees it
  }
}
