import { decodeNixbase32, encodeNixbase32, narInfoFromPathInfo, type PathInfo } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import { type Exchange, textAnswer } from "../exchange.ts";
import { HttpError } from "../http-error.ts";
import type { Router } from "../router.ts";
import { isLost } from "../stored-nars.ts";

const HEADERS = { "content-type": "text/x-nix-narinfo" };

/** Serves `/<hash>.narinfo`, the description of a store path. */
export function narInfoRoutes(router: Router, context: BridgeContext): void {
  const { pathInfoService, storeDir, nars, fileHashes, narInfos } = context;
  const { announce, signer, pullThrough } = context;

  /** Returns length and hash of the NAR as a file of frames, the hash where it is known; `undefined` if none are stored. */
  const fileOf = async ({ node, narSize }: PathInfo, signal: AbortSignal) => {
    try {
      const measured = await nars.measureFramed(node, signal);
      if (measured === undefined) return undefined;
      if (BigInt(measured.narSize) === narSize) {
        const digest = await fileHashes.get(node, measured, { signal });
        const fileHash = digest && ({ algorithm: "sha256", digest } as const);
        return { fileSize: BigInt(measured.fileSize), fileHash };
      }
      throw new HttpError(404, `Its NAR has ${measured.narSize} bytes, expected ${narSize}`);
    } catch (error) {
      if (!isLost(error) && !(error instanceof HttpError)) throw error;
      // The client may have it from another cache, or push it again.
      const message = `The contents of this store path are not here: ${error.message}`;
      throw new HttpError(404, message, { cause: error });
    }
  };

  const narOf = async (pathInfo: PathInfo, hash: string, signal: () => AbortSignal) => {
    const { narSha256, narSize } = pathInfo;
    const url = `nar/${encodeNixbase32(narSha256)}.nar`;
    const file = announce === "zstd" ? await fileOf(pathInfo, signal()) : undefined;
    if (file !== undefined) {
      return { url: `${url}.zst?hash=${hash}`, compression: "zstd", ...file };
    }
    return {
      url: `${url}?hash=${hash}`,
      compression: "none",
      fileHash: { algorithm: "sha256", digest: narSha256 },
      fileSize: narSize,
    } as const;
  };

  const send = async (exchange: Exchange, hash: string) => {
    const stored = await pathInfoService.get(decodeNixbase32(hash));
    const sendPulled = async () => {
      const found = await pullThrough?.narInfo(hash, exchange.signal);
      if (found !== undefined) exchange.send(200, found.toString({ storeDir }), HEADERS);
      return found !== undefined;
    };
    if (stored === undefined) {
      if (await sendPulled()) return;
      throw new HttpError(404, `There is no store path ${hash} here`);
    }
    const pathInfo = await signer.whenServed(stored, () => exchange.signal);
    let nar: Awaited<ReturnType<typeof narOf>>;
    try {
      nar = await narOf(pathInfo, hash, () => exchange.signal);
    } catch (error) {
      const isAbsent = error instanceof HttpError && error.status === 404;
      if (isAbsent && (await sendPulled())) return; // its contents are lost here
      throw error;
    }
    const text = narInfoFromPathInfo(pathInfo, nar).toString({ storeDir });
    const answer = textAnswer(text, HEADERS);
    narInfos.set(hash, answer);
    exchange.sendText(answer);
  };

  router.get("/:hash.narinfo", (exchange, { hash = "" }) => {
    const known = narInfos.get(hash);
    if (known === undefined) return send(exchange, hash);
    exchange.sendText(known);
  });
}
