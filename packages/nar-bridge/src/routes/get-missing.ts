import { collectAtMost, mapInParallel } from "@tvix/castore";
import { decodeNixbase32 } from "@tvix/store";
import { z } from "zod";
import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import type { Router } from "../router.ts";

const HEADERS = { "content-type": "application/json" };

/** Most store paths that are looked up at once, and the longest request about them, in bytes. */
const MAX_HASH_PARTS = 16_384;
const MAX_BYTES = 1024 * 1024;

const REQUEST = z.strictObject({
  hashParts: z.array(z.string().regex(/^[0-9a-df-np-sv-z]{32}$/)).max(MAX_HASH_PARTS),
});

/** How many of them are looked up in other caches at the same time. */
const UPSTREAM_LOOKUPS = 32;

/**
 * Serves `POST /get-missing`: takes the hash parts of many store paths, and tells which of these are not here, and in no
 * upstream.
 */
export function getMissingRoutes(
  router: Router,
  { pathInfoService, pullThrough }: BridgeContext,
): void {
  /** Returns whether no upstream is known to have a store path. */
  const isMissing = async (hash: string, { signal }: { signal: AbortSignal }) =>
    (await pullThrough?.narInfo(hash, signal).catch(() => undefined)) === undefined;

  router.post("/get-missing", async (exchange) => {
    const body = await collectAtMost(exchange.body(), MAX_BYTES);
    if (body === undefined) {
      throw new HttpError(413, `Cannot look up store paths: expected at most ${MAX_BYTES} bytes`);
    }
    const hashParts = parseHashParts(Buffer.from(body).toString());
    const digests = hashParts.map((hashPart) => decodeNixbase32(hashPart));
    const found = await pathInfoService.getMany(digests, { signal: exchange.signal });
    const absent = hashParts.filter((_, i) => found[i] === undefined);
    const options = { signal: exchange.signal };
    const areMissing = await mapInParallel(absent, UPSTREAM_LOOKUPS, isMissing, options);
    const missing = absent.filter((_, i) => areMissing[i]);
    exchange.send(200, JSON.stringify({ missing }), HEADERS);
  });
}

function parseHashParts(text: string): string[] {
  try {
    return REQUEST.parse(JSON.parse(text)).hashParts;
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? z.prettifyError(cause) : "it is not JSON";
    throw new HttpError(400, `Cannot look up store paths: ${reason}`, { cause });
  }
}
