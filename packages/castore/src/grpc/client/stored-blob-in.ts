import type { ReadBlobsResponse_Blob } from "@tvix/proto/castore";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import { contentSizeOf } from "../../compression/zstd-frame.ts";

/**
 * Returns a blob as a server has sent it; `undefined` for one that is absent, or not of the length in bytes.
 *
 * @param memory what it is in
 */
export function storedBlobIn(
  { present, contents, frame }: ReadBlobsResponse_Blob,
  size: number,
  memory: Uint8Array,
): StoredBlob | undefined {
  if (!present) return undefined;
  const isFrame = frame.length > 0;
  const found = isFrame ? contentSizeOf(frame) : contents.length;
  if (found !== size) return undefined;
  return isFrame ? { frame, memory } : { contents, memory };
}
