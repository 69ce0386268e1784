import { equalBytes, type Node } from "@tvix/castore";
import { decodeNixbase32 } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import { parseNode } from "../node-text.ts";
import { pushedContent } from "../pushed-content.ts";
import type { Router } from "../router.ts";
import { isLost } from "../stored-nars.ts";
import { parseNarName } from "../upload/nar-name.ts";

/**
 * Serves NARs: `/nar/<NAR hash>.nar[.zst]?hash=<hash part of a store path that has it>`, as narinfos announce them, and
 * `/nar/tvix-castore/<root node>?narsize=<length>`, as the bridge of tvix serves them; and every NAR that a client has
 * pushed under the name that it was pushed under, as Nix keeps the narinfos that it pushes.
 */
export function narRoutes(router: Router, context: BridgeContext): void {
  const { pathInfoService, uploads, nars, pullThrough } = context;
  const findNode = async (
    narHash: string,
    hashPart: string,
    signal: AbortSignal,
  ): Promise<Node | undefined> => {
    const pathInfo = await pathInfoService.get(decodeNixbase32(hashPart), { signal });
    const isThisNar = pathInfo && equalBytes(pathInfo.narSha256, decodeNixbase32(narHash));
    return isThisNar ? pathInfo.node : undefined;
  };

  router.get("/nar/tvix-castore/:node", async (exchange, { node = "" }, { narsize }) => {
    const nar = await nars.open(parseNode(node), exchange.signal);
    if (narsize !== undefined && narsize !== `${nar.size}`) {
      const reason = `expected narsize to be ${nar.size}, found ${JSON.stringify(narsize)}`;
      throw new HttpError(400, `Cannot serve a NAR: ${reason}`);
    }
    await exchange.sendContent(nar);
  });

  router.get("/nar/:name", async (exchange, { name = "" }, { hash }) => {
    const [, narHash, isFramed] = /^([0-9a-z]{52})\.nar(\.zst)?$/.exec(name) ?? [];
    const { signal } = exchange;
    const pushed = parseNarName(name) && (await uploads.get(name, { signal }));
    if (pushed) {
      await exchange.sendContent(await pushedContent(pushed, context, signal));
      return;
    }
    if (!narHash || !hash) throw new HttpError(404, `There is no NAR ${name} here`);
    const node = await findNode(narHash, hash, signal);
    const open = async (node: Node) => {
      if (!isFramed) return await nars.open(node, signal);
      const content = await nars.openFramed(node, signal);
      if (content !== undefined) return content;
      throw new HttpError(501, "Cannot serve a NAR as stored frames: none are stored");
    };
    try {
      if (node === undefined) throw new HttpError(404, `There is no NAR ${name} here`);
      await exchange.sendContent(await open(node));
    } catch (error) {
      if (exchange.hasAnswer || (node && !isLost(error))) throw error;
      if (!isFramed && (await pullThrough?.send(exchange, hash, narHash))) return;
      // Its length is known once it is stored.
      if (!node || !isFramed || !(await pullThrough?.restore(hash, narHash, signal))) throw error;
      await exchange.sendContent(await open(node));
    }
  });
}
