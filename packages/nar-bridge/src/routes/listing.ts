import { hasCode } from "@tvix/castore";
import { decodeNixbase32, listNar } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import type { Router } from "../router.ts";

const HEADERS = { "content-type": "application/json" };

/** Serves `/<hash>.ls`, the listing of the contents of a store path. */
export function listingRoutes(
  router: Router,
  { pathInfoService, directoryService }: BridgeContext,
): void {
  router.get("/:hash.ls", async (exchange, { hash = "" }) => {
    const { signal } = exchange;
    const pathInfo = await pathInfoService.get(decodeNixbase32(hash), { signal });
    if (pathInfo === undefined) throw new HttpError(404, `There is no store path ${hash} here`);
    try {
      const listing = await listNar(pathInfo.node, directoryService, { signal });
      exchange.send(200, JSON.stringify(listing), HEADERS);
    } catch (error) {
      // Names that are not UTF-8 have no place in a listing. Clients without one read the NAR.
      if (!hasCode(error, "invalid_argument")) throw error;
      throw new HttpError(404, error.message, { cause: error });
    }
  });
}
