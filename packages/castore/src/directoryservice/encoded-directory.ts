import { asPlainBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { decodeDirectory } from "../model/convert.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";

/** A directory with its encoding and the digest of it. */
export interface EncodedDirectory {
  readonly directory: Directory;
  readonly bytes: Uint8Array;
  readonly digest: B3Digest;
}

/** The encoding of a directory, which is canonical unless it was decoded from another, with the digest of it. */
export function encodeDirectory(directory: Directory): EncodedDirectory {
  const { encoding } = directory;
  if (encoding !== undefined) return { directory, ...encoding };
  const { bytes } = directory.encodedEntries;
  return { directory, bytes, digest: blake3Digest(bytes) };
}

/** Encodes a directory without a look at its digest. */
export function directoryBytes(directory: Directory): Uint8Array {
  return (directory.encoding ?? directory.encodedEntries).bytes;
}

/**
 * Decodes a directory from storage and makes sure that it is the one asked for.
 *
 * @throws CastoreError `data_loss` if the bytes do not have that digest or are no directory
 */
export function decodeDirectoryOf(digest: B3Digest, bytes: Uint8Array): Directory {
  const found = blake3Digest(bytes);
  if (!found.equals(digest)) {
    throw new CastoreError(
      "data_loss",
      `Cannot use directory ${digest}: its bytes have digest ${found}`,
    );
  }
  try {
    const encoding = { bytes: asPlainBytes(bytes), digest };
    return decodeDirectory(bytes).withEncoding(encoding);
  } catch (cause) {
    throw new CastoreError("data_loss", `Cannot use directory ${digest}: it is not valid`, {
      cause,
    });
  }
}

/** Encodes each directory of a stream. */
export async function* withDigests(
  directories: AsyncIterable<Directory>,
): AsyncGenerator<EncodedDirectory> {
  for await (const directory of directories) yield encodeDirectory(directory);
}
