import type { BridgeContext } from "../context.ts";
import type { Router } from "../router.ts";

const HEADERS = { "content-type": "text/x-nix-cache-info" };

/** Serves `/nix-cache-info`, which tells clients how to use this cache. */
export function cacheInfoRoutes(
  router: Router,
  { storeDir, priority, wantMassQuery }: BridgeContext,
): void {
  const text = `StoreDir: ${storeDir}\nWantMassQuery: ${wantMassQuery ? 1 : 0}\nPriority: ${priority}\n`;
  router.get("/nix-cache-info", (exchange) => exchange.send(200, text, HEADERS));
}
