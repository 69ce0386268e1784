import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import type { Router } from "../router.ts";
import { wholeBody } from "../upload/request-body.ts";

const HEADERS = { "content-type": "text/x-nix-cache-info" };

/** Longest description of a cache that is looked at, in bytes. */
const MAX_BYTES = 16 * 1024;

/** Serves `/nix-cache-info`, which tells clients how to use this cache. */
export function cacheInfoRoutes(
  router: Router,
  { storeDir, priority, wantMassQuery }: BridgeContext,
): void {
  const lines = [
    `StoreDir: ${storeDir}`,
    `WantMassQuery: ${wantMassQuery ? 1 : 0}`,
    `Priority: ${priority}`,
  ];
  const text = lines.map((line) => `${line}\n`).join("");
  router.get("/nix-cache-info", (exchange) => exchange.send(200, text, HEADERS));

  router.put("/nix-cache-info", async (exchange) => {
    const body = await wholeBody(exchange, { name: '"nix-cache-info"', maxBytes: MAX_BYTES });
    const other = body
      .toString()
      .split("\n")
      .find((line) => line !== "" && !lines.includes(line));
    if (other !== undefined) {
      const reason = `expected what this cache tells, ${lines.join(", ")}; found ${JSON.stringify(other)}`;
      throw new HttpError(409, `Cannot store "nix-cache-info": ${reason}`);
    }
    exchange.created();
  });
}
