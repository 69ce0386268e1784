import { CastoreError } from "../model/errors.ts";
import type { FileNode } from "../model/node.ts";
import type { BlobService, ReadOptions } from "./blob-service.ts";

/**
 * Reads the contents of a file in pieces, which belong to the caller.
 *
 * @throws CastoreError `not_found` if its blob is missing, `data_loss` if that is damaged or has another length than the
 *   node states
 */
export async function* readFileNode(
  blobService: Pick<BlobService, "read">,
  { digest, size }: FileNode,
  options?: Pick<ReadOptions, "signal" | "readAhead">,
): AsyncGenerator<Uint8Array> {
  const stream = await blobService.read(digest, options);
  if (stream === undefined) {
    throw new CastoreError("not_found", `Cannot read blob ${digest}: it is missing`);
  }
  let found = 0n;
  for await (const data of stream) {
    found += BigInt(data.length);
    if (found > size) break;
    yield data;
  }
  if (found === size) return;
  const bytes = found > size ? "more" : `only ${found}`;
  throw new CastoreError(
    "data_loss",
    `Cannot read blob ${digest}: expected ${size} bytes, found ${bytes}`,
  );
}
