import { type B3Digest, type BlobService, CastoreError } from "@tvix/castore";
import type { Content, Headers } from "./exchange.ts";

/**
 * Returns the contents of a blob.
 *
 * @throws CastoreError `not_found` if there is no such blob
 */
export async function blobContent(
  digest: B3Digest,
  blobService: BlobService,
  headers: Headers,
  signal: AbortSignal,
): Promise<Content> {
  const missing = () => new CastoreError("not_found", `Cannot read blob ${digest}: it is missing`);
  const [stat] = await blobService.statMany([digest], { signal });
  if (stat === undefined) throw missing();
  return {
    size: stat.size,
    headers,
    etag: `"${digest}"`,
    async *read(range, signal) {
      const contents = await blobService.read(digest, { ...range, signal });
      if (contents === undefined) throw missing();
      yield* contents;
    },
  };
}
