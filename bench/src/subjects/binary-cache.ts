import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeNixbase32, narInfoFromPathInfo, openPathInfoService } from "@tvix/store";
import { onlyPathInfo } from "../clients/only-path-info.ts";
import { runCommand } from "../measure.ts";
import type { Place, Step, Subject } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import { cacheDaemonCommand, importCommand, ours } from "./tvix-store.ts";

/** Where the caches listen, beside their sockets: the load generator knows no sockets. */
const PORT = 18_573;

const step = (name: string, what: string): Step => ({
  name,
  reportsWork: true,
  command: ({ folder }) =>
    clientCommand("binary-cache", `${PORT}`, ours.addresses(folder)[2], what),
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

async function storeTree({ folder }: Place, { path }: Tree): Promise<void> {
  await runCommand(importCommand(ours, ours.addresses(folder), path));
}
