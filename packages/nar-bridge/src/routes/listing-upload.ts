import type { BridgeContext } from "../context.ts";
import type { Router } from "../router.ts";
import { plainBody } from "../upload/request-body.ts";

/**
 * Takes `PUT /<hash>.ls`, the listing of a store path, and does not keep it: listings are made of what is stored. It comes
 * before the store path, so there is nothing to compare it with.
 */
export function listingUploadRoutes(router: Router, { maxUploadBytes }: BridgeContext): void {
  router.put("/:hash.ls", async (exchange, { hash = "" }) => {
    const body = plainBody(exchange, { name: `"${hash}.ls"`, maxBytes: maxUploadBytes });
    for await (const _ of body);
    exchange.created();
  });
}
