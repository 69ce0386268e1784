import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import {
  collectBytes,
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  MemoryObjectStore,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import {
  encodeNixbase32,
  MemoryPathInfoService,
  type PathInfo,
  RenderingNarCalculationService,
  renderNar,
  StorePath,
} from "@tvix/store";
import { type Answered, createNarBridge, type NarBridgeOptions } from "../src/index.ts";

/** A bridge behind a server of its own, over services in memory unless others are given. */
export interface BridgeFixture extends AsyncDisposable {
  /** Address of the cache, without a slash at its end. */
  readonly url: string;
  readonly port: number;
  readonly services: Services;
  /** The requests that were answered, in order. */
  readonly answered: Answered[];
}

type Services = Pick<
  NarBridgeOptions,
  "blobService" | "directoryService" | "pathInfoService" | "objects"
>;

/** Starts a bridge on a free port. */
export async function startBridge(options: Partial<NarBridgeOptions> = {}): Promise<BridgeFixture> {
  const services = {
    blobService: options.blobService ?? new MemoryBlobService(),
    directoryService: options.directoryService ?? new MemoryDirectoryService(),
    pathInfoService: options.pathInfoService ?? new MemoryPathInfoService(),
    objects: options.objects ?? new MemoryObjectStore(),
  };
  const answered: Answered[] = [];
  const bridge = await createNarBridge({
    ...options,
    ...services,
    onAnswered: (one) => answered.push(one),
  });
  const server = createServer((request, response) => bridge.handle(request, response)).listen(
    0,
    "127.0.0.1",
  );
  server.on("checkContinue", (request, response) => bridge.handle(request, response, true));
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    services,
    answered,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await bridge[Symbol.asyncDispose]();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Contents of files by name, targets of symlinks, and folders. */
export interface Tree {
  readonly [name: string]: string | Uint8Array | { readonly target: string } | Tree;
}

/** Makes a store path of a tree, or a file, and its NAR, without a bridge. */
export async function narOf(
  name: string,
  tree: Tree | string | Uint8Array,
): Promise<{ readonly pathInfo: PathInfo; readonly nar: Buffer }> {
  const services = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
    pathInfoService: new MemoryPathInfoService(),
    objects: new MemoryObjectStore(),
  };
  const pathInfo = await addTree(services, name, tree);
  return { pathInfo, nar: Buffer.from(await collectBytes(renderNar(pathInfo.node, services))) };
}

/** Stores a tree, or a file, and registers it as a store path of that name. */
export async function addTree(
  services: Services,
  name: string,
  tree: Tree | string | Uint8Array,
): Promise<PathInfo> {
  await using putter = services.directoryService.openPutter();
  const put = async (value: Tree[string]): Promise<Node> => {
    if (typeof value === "string" || value instanceof Uint8Array) {
      const contents = Buffer.from(value);
      const digest = await putBlob(services.blobService, contents);
      return { type: "file", digest, size: BigInt(contents.length), executable: false };
    }
    if (typeof value.target === "string") {
      return { type: "symlink", target: symlinkTarget(value.target) };
    }
    const entries = [];
    for (const [name, inner] of Object.entries(value as Tree)) {
      entries.push({ name: pathComponent(name), node: await put(inner) });
    }
    const directory = Directory.from(entries);
    await putter.put(directory);
    return { type: "directory", digest: encodeDirectory(directory).digest, size: directory.size };
  };
  const node = await put(tree);
  if (node.type === "directory") await putter.close();
  const nar = await new RenderingNarCalculationService(services).calculateNar(node);
  const hashPart = Buffer.alloc(20, name);
  return await services.pathInfoService.put({
    storePath: StorePath.from(hashPart, name),
    node,
    references: [],
    ...nar,
    signatures: [],
  });
}

/** Returns the hash part of a store path in nixbase32, as it stands in URLs. */
export function hashOf({ storePath }: PathInfo): string {
  return encodeNixbase32(storePath.hashPart);
}
