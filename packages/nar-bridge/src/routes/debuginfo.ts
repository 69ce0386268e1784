import { z } from "zod";
import type { BridgeContext } from "../context.ts";
import { debugInfoPath } from "../debug-info-index.ts";
import { HttpError } from "../http-error.ts";
import { sendPushedFile } from "../pushed-file.ts";
import type { Router } from "../router.ts";
import { wholeBody } from "../upload/request-body.ts";

const HEADERS = { "content-type": "application/json" };

/** Longest description of where debug information is, in bytes. */
const MAX_BYTES = 64 * 1024;

/** A NAR, by its URL relative to this one, and a file in it. */
const PLACE = z.looseObject({ archive: z.string().min(1), member: z.string().min(1) });

/**
 * Serves `/debuginfo/<build id>`, which tells in what NAR the debug information of a program is: as it was found in store
 * paths, or as clients push it. Nix appends `.debug` to the build id, debuggers may not.
 */
export function debugInfoRoutes(router: Router, context: BridgeContext): void {
  const { sideObjects, debugInfoScan } = context;
  router.get("/debuginfo/:id", async (exchange, { id = "" }) => {
    const path = pathOf(id);
    const { signal } = exchange;
    const isKnown = (await sideObjects.head(path, { signal })) !== undefined;
    if (!isKnown) await debugInfoScan.run({ signal });
    await sendPushedFile(exchange, sideObjects, path, HEADERS);
  });

  router.put("/debuginfo/:id", async (exchange, { id = "" }) => {
    const path = pathOf(id);
    const name = `"debuginfo/${id}"`;
    const bytes = await wholeBody(exchange, { name, maxBytes: MAX_BYTES });
    try {
      PLACE.parse(JSON.parse(bytes.toString()));
    } catch (cause) {
      const reason = 'expected JSON with "archive" and "member"';
      throw new HttpError(400, `Cannot store ${name}: ${reason}`, { cause });
    }
    await sideObjects.put(path, bytes, { signal: exchange.signal });
    exchange.created();
  });
}

function pathOf(id: string): string[] {
  const buildId = /^([0-9a-f]{2,128})(\.debug)?$/.exec(id)?.[1];
  if (buildId !== undefined) return debugInfoPath(buildId);
  const reason = `expected lower-case hexadecimal, found ${JSON.stringify(id)}`;
  throw new HttpError(400, `Cannot use a build id: ${reason}`);
}
