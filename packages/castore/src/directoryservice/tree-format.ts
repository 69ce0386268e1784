import { pipeline } from "node:stream";
import { createZstdCompress } from "node:zlib";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { concatBytes, copyBytes } from "../bytes/byte-string.ts";
import { decompress } from "../compression/decompress.ts";
import { decodeDirectory } from "../model/convert.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { MAX_MESSAGE_BYTES } from "../model/limits.ts";
import { encodeDirectory } from "./encoded-directory.ts";

/** Length in bytes of the length prefix of each message in a tree. */
const LENGTH_BYTES = 4;

/**
 * Encodes a tree as tvix does: one zstd stream of directories, each with a length prefix (4 bytes, big-endian).
 *
 * @param directories from the root to the leaves
 */
export function encodeTree(directories: Iterable<Directory>): AsyncIterable<Uint8Array> {
  // An error on the way is thrown by the last stream, where it is read.
  return pipeline(delimited(directories), createZstdCompress(), () => undefined);
}

async function* delimited(directories: Iterable<Directory>): AsyncGenerator<Uint8Array> {
  for (const directory of directories) {
    const { bytes } = encodeDirectory(directory);
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(bytes.length);
    yield Buffer.concat([length, bytes]);
  }
}

/**
 * Decodes a tree, with one directory in memory at a time. Checks the encoding of each directory, not its references.
 *
 * Iterating throws CastoreError `data_loss` or `invalid_argument` for a malformed or truncated tree; the errors of the
 * stream; `signal.reason` when cancelled.
 */
export async function* decodeTree(
  stream: AsyncIterable<Uint8Array>,
  options?: AbortOptions,
): AsyncGenerator<Directory> {
  for await (const message of messages(decompress(stream, "zstd", options))) {
    yield decodeDirectory(message);
  }
}

/** Splits a stream at its length prefixes. The messages belong to the caller. */
async function* messages(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest = Buffer.alloc(0);
  let needed = LENGTH_BYTES;
  let isLength = true;
  const parts: Uint8Array[] = [];
  let have = 0;
  for await (const data of stream) {
    parts.push(data);
    have += data.length;
    if (have < needed) continue;
    rest = Buffer.from(concatBytes(parts.splice(0)));
    for (let at = 0; ; ) {
      if (rest.length - at < needed) {
        rest = rest.subarray(at);
        break;
      }
      if (isLength) {
        const length = rest.readUInt32BE(at);
        if (length > MAX_MESSAGE_BYTES) {
          throw new CastoreError("data_loss", `found a directory of ${length} bytes`);
        }
        at += LENGTH_BYTES;
        needed = length;
      } else {
        yield copyBytes(rest.subarray(at, at + needed));
        at += needed;
        needed = LENGTH_BYTES;
      }
      isLength = !isLength;
    }
    parts.push(rest);
    have = rest.length;
  }
  if (have > 0 || !isLength) throw new CastoreError("data_loss", "it breaks off");
}
