import type { BlobService } from "@tvix/castore";
import { blobContent } from "./blob-content.ts";
import type { Content } from "./exchange.ts";
import { HttpError } from "./http-error.ts";
import { formatNode } from "./node-text.ts";
import type { PushedNar } from "./pushed-nar.ts";
import { STORED_BROTLI } from "./stored/brotli.ts";
import { STORED_GZIP } from "./stored/gzip.ts";
import { StoredFile } from "./stored/stored-file.ts";
import { STORED_XZ } from "./stored/xz.ts";
import { STORED_ZSTD } from "./stored/zstd.ts";
import { isLost, type StoredNars } from "./stored-nars.ts";

const HEADERS = { "content-type": "application/x-nix-nar" };

const STORED_FORMATS = {
  br: STORED_BROTLI,
  gzip: STORED_GZIP,
  xz: STORED_XZ,
  zstd: STORED_ZSTD,
};

/**
 * Returns the file of a NAR as it is served under the name that it was pushed under: in the same compression, and by
 * bzip2 with the same bytes.
 *
 * @throws HttpError 404 if something of it is missing, so that a client pushes it again
 */
export async function pushedContent(
  pushed: PushedNar,
  { nars, blobService }: { nars: StoredNars; blobService: BlobService },
  signal: AbortSignal,
): Promise<Content> {
  const { compression, node, file } = pushed;
  try {
    if (compression === "none") return await nars.open(node, signal);
    if (compression === "bzip2") return await blobContent(file!, blobService, HEADERS, signal);
    const framed = compression === "zstd" ? await nars.openFramed(node, signal) : undefined;
    if (framed !== undefined) return framed;
    const stored = new StoredFile(STORED_FORMATS[compression], await nars.open(node, signal));
    return {
      size: stored.size,
      headers: HEADERS,
      etag: `"${compression}-${formatNode(node)}"`,
      read: (range, signal) => stored.read(range, signal),
    };
  } catch (error) {
    if (!isLost(error)) throw error;
    throw new HttpError(404, `The NAR is not whole, push it again: ${error.message}`);
  }
}
