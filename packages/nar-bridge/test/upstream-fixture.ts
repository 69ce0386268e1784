import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { fingerprint, NarInfo, narInfoFromPathInfo, type PathInfo, SigningKey } from "@tvix/store";
import { hashOf, narOf, type Tree } from "./bridge-fixture.ts";

/** Answers a request to an upstream. */
export type Answer = (response: ServerResponse, request: IncomingMessage) => void;

/** A store path of an upstream. */
export interface Offered {
  readonly hash: string;
  readonly pathInfo: PathInfo;
  readonly nar: Buffer;
  /** The path of the narinfo, and of the NAR, which is compressed by gzip. */
  readonly narInfoPath: string;
  readonly narPath: string;
}

/** A binary cache whose every answer can be replaced. */
export interface Upstream extends AsyncDisposable {
  readonly url: string;
  /** What it has, by path. Everything else is answered by 404. */
  readonly files: Map<string, Buffer | Answer>;
  /** The paths that were asked for, in order. */
  readonly requests: string[];
  /** Stops listening, and cuts all connections. */
  stop(): Promise<void>;
  /** Listens again at the same port. */
  start(): Promise<void>;
  /** Adds a store path, signed by a key. */
  offer(name: string, tree: Tree | string | Uint8Array, key?: SigningKey): Promise<Offered>;
}

/** The key of what upstreams offer. */
export const KEY: SigningKey = SigningKey.generate("upstream-1");

/** Starts a binary cache without store paths. */
export async function startUpstream(): Promise<Upstream> {
  const files = new Map<string, Buffer | Answer>();
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(request.url!);
    const file = files.get(request.url!);
    if (typeof file === "function") file(response, request);
    else if (file === undefined) response.writeHead(404).end();
    else response.end(file);
  });
  let port = 0;
  const start = async () => {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    ({ port } = server.address() as AddressInfo);
  };
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  await start();
  return {
    url: `http://127.0.0.1:${port}`,
    files,
    requests,
    stop,
    start,
    async offer(name, tree, key = KEY) {
      const { pathInfo, nar } = await narOf(name, tree);
      const signed = { ...pathInfo, signatures: [key.sign(fingerprint(pathInfo))] };
      const narPath = `/nar/${name}.nar.gz`;
      const narInfo = narInfoFromPathInfo(signed, { url: narPath.slice(1), compression: "gzip" });
      const narInfoPath = `/${hashOf(pathInfo)}.narinfo`;
      files.set(narInfoPath, Buffer.from(NarInfo.from(narInfo).toString()));
      files.set(narPath, gzipSync(nar, { level: 1 }));
      return { hash: hashOf(pathInfo), pathInfo: signed, nar, narInfoPath, narPath };
    },
    [Symbol.asyncDispose]: stop,
  };
}
