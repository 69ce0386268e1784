import { StorePath } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import { sendPushedFile } from "../pushed-file.ts";
import type { Router } from "../router.ts";
import { decodedBody } from "../upload/request-body.ts";

const HEADERS = { "content-type": "text/plain; charset=utf-8" };

/** Serves `/log/<derivation>`, the logs of builds, as clients push them. */
export function logRoutes(
  router: Router,
  { sideObjects, uploadSlots, maxUploadBytes }: BridgeContext,
): void {
  router.get("/log/:drv", async (exchange, { drv = "" }) => {
    await sendPushedFile(exchange, sideObjects, pathOf(drv), HEADERS);
  });

  router.put("/log/:drv", async (exchange, { drv = "" }) => {
    const path = pathOf(drv);
    const { client, signal } = exchange;
    await uploadSlots.run(client, signal, async () => {
      const body = decodedBody(exchange, { name: `"log/${drv}"`, maxBytes: maxUploadBytes });
      await using upload = sideObjects.openUpload(path, { signal });
      for await (const data of body) await upload.write(data);
      await upload.close();
    });
    exchange.created();
  });
}

/** Returns the path of the log of a derivation. */
function pathOf(drv: string): string[] {
  const { name } = StorePath.parse(drv);
  if (name.endsWith(".drv")) return ["log", drv];
  throw new HttpError(400, `Cannot use the log of "${drv}": expected a name that ends with ".drv"`);
}
