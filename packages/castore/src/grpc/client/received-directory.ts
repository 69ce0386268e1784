import { asPlainBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { decodeDirectory } from "../../model/convert.ts";
import type { B3Digest } from "../../model/digest.ts";
import type { Directory } from "../../model/directory.ts";

/**
 * Decodes a directory that a server sent. Its digest is that of the bytes, where it is expected by that, or else of its canonical
 * encoding.
 *
 * @throws CastoreError `invalid_argument` if the bytes are no directory
 */
export function receivedDirectory(
  message: Uint8Array,
  isExpected: (digest: B3Digest) => boolean,
): Directory {
  const directory = decodeDirectory(message);
  const bytes = asPlainBytes(message);
  const digest = blake3Digest(bytes);
  return isExpected(digest) ? directory.withEncoding({ bytes, digest }) : directory;
}
