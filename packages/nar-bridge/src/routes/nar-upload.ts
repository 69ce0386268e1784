import type { BridgeContext } from "../context.ts";
import type { Router } from "../router.ts";
import { expectNarName } from "../upload/nar-name.ts";
import { plainBody, smallBody } from "../upload/request-body.ts";

/** Takes `PUT /nar/<hash>.nar[.<compression>]`, a NAR that a narinfo will name. */
export function narUploadRoutes(router: Router, context: BridgeContext): void {
  const { uploads, uploadSlots, maxUploadBytes } = context;
  router.put("/nar/:name", async (exchange, params) => {
    const name = expectNarName(params.name ?? "");
    const { client, signal } = exchange;
    await uploadSlots.run(client, signal, async () => {
      const limits = { name: `"nar/${name.text}"`, maxBytes: maxUploadBytes };
      const body = (await smallBody(exchange, limits)) ?? plainBody(exchange, limits);
      await uploads.take(name, body, { signal });
    });
    exchange.created();
  });
}
