import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeNixbase32, narInfoFromPathInfo, openPathInfoService } from "@tvix/store";
import { onlyPathInfo } from "../clients/only-path-info.ts";
import { runCommand } from "../measure.ts";
import type { Place, Step, Subject } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import { addressFlags, cacheDaemonCommand, importCommand, ours, peer } from "./tvix-store.ts";

/** Where the caches listen, beside their sockets: the load generator knows no sockets. */
const PORT = 18_573;

export const CROWDED_CACHE = "binary cache, daemon, 64 down and 16 up";

/** Another implementation of `tvix-store nar-bridge`, by its path. */
const PEER_NAR_BRIDGE = process.env.PEER_NAR_BRIDGE || "PEER_NAR_BRIDGE";

const step = (name: string, what: string, client = "binary-cache"): Step => ({
  name,
  reportsWork: true,
  command: ({ folder }) => clientCommand(client, `${PORT}`, ours.addresses(folder)[2], what),
});

/** Serves a stored tree to clients of a binary cache. */
export function binaryCache(tree: Tree): Subject {
  return {
    name: "binary cache, daemon",
    needs: ["wrk", "curl"],
    profiled: true,
    keepsFolder: true,
    prepare: (place) => storeTree(place, tree),
    daemon: (place) => cacheDaemonCommand(place, PORT),
    steps: [step("narinfo", "narinfo"), step("NAR", "nar"), step("NAR, zstd", "nar.zst")],
  };
}

/** Serves a stored tree to many slow clients, while others upload: of interest is the memory that it takes. */
export function crowdedCache(tree: Tree): Subject {
  return {
    name: CROWDED_CACHE,
    needs: ["curl"],
    prepare: (place) => storeTree(place, tree),
    daemon: (place) => cacheDaemonCommand(place, PORT),
    steps: [step("NAR", "nar", "crowd"), step("NAR, zstd", "nar.zst", "crowd")],
  };
}

/** Serves the narinfo and the NAR of a tree from files. */
export function nginxCache(tree: Tree): Subject {
  const web = (folder: string) => join(folder, "web");
  return {
    name: "binary cache, nginx",
    needs: ["run-nginx", "wrk", "curl"],
    keepsFolder: true,
    prepare: async (place) => {
      const { folder } = place;
      await storeTree(place, tree);
      await mkdir(join(web(folder), "nar"), { recursive: true });
      await using service = await openPathInfoService(ours.addresses(folder)[2]);
      const pathInfo = await onlyPathInfo(service);
      const url = `nar/${encodeNixbase32(pathInfo.narSha256)}.nar`;
      const narInfo = narInfoFromPathInfo(pathInfo, { url, compression: "none" });
      const name = `${encodeNixbase32(pathInfo.storePath.hashPart)}.narinfo`;
      await writeFile(join(web(folder), name), narInfo.toString());
      const nar = join(web(folder), url);
      await runCommand(clientCommand("render-nar", ...ours.addresses(folder), nar));
    },
    daemon: ({ folder, socket }) => ({
      argv: ["run-nginx"],
      env: { DATA: web(folder), PORT: `${PORT}`, SOCKET: socket },
    }),
    steps: [step("narinfo", "narinfo"), step("NAR", "nar")],
  };
}

/** Serves a tree out of the stores of the peer by its `nar-bridge`. */
export function peerCache(tree: Tree): Subject {
  const stores = (folder: string) => join(folder, "peer");
  return {
    name: "binary cache, peer",
    needs: [peer.argv[0]!, PEER_NAR_BRIDGE, "wrk", "curl"],
    keepsFolder: true,
    prepare: async (place) => {
      await storeTree(place, tree); // tells what to ask for
      await mkdir(stores(place.folder));
      await runCommand(importCommand(peer, peer.addresses(stores(place.folder)), tree.path));
    },
    daemon: ({ folder }) => ({
      argv: [
        PEER_NAR_BRIDGE,
        ...["-l", `127.0.0.1:${PORT}`],
        ...addressFlags(peer.addresses(stores(folder))),
      ],
      port: PORT,
    }),
    steps: [step("narinfo", "narinfo"), step("NAR", "announced")],
  };
}

async function storeTree({ folder }: Place, { path }: Tree): Promise<void> {
  await runCommand(importCommand(ours, ours.addresses(folder), path));
}
