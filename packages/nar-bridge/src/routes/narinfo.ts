import { decodeNixbase32, encodeNixbase32, narInfoFromPathInfo } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import type { Router } from "../router.ts";

const HEADERS = { "content-type": "text/x-nix-narinfo" };

/** Serves `/<hash>.narinfo`, the description of a store path. */
export function narInfoRoutes(router: Router, { pathInfoService, storeDir }: BridgeContext): void {
  router.get("/:hash.narinfo", async (exchange, { hash = "" }) => {
    const pathInfo = await pathInfoService.get(decodeNixbase32(hash));
    if (pathInfo === undefined) {
      exchange.text(404, `There is no store path ${hash} here`);
      return;
    }
    const { narSha256, narSize } = pathInfo;
    const narInfo = narInfoFromPathInfo(pathInfo, {
      url: `nar/${encodeNixbase32(narSha256)}.nar?hash=${hash}`,
      compression: "none",
      fileHash: { algorithm: "sha256", digest: narSha256 },
      fileSize: narSize,
    });
    exchange.send(200, narInfo.toString({ storeDir }), HEADERS);
  });
}
