import {
  type BlobService,
  CastoreError,
  type Directory,
  type DirectoryNode,
  type DirectoryService,
  type FileNode,
  type Node,
  pathComponent,
} from "@tvix/castore";
import { decodeNixbase32 } from "@tvix/store";
import { lookup } from "mrmime";
import Negotiator from "negotiator";
import { blobContent } from "../blob-content.ts";
import type { BridgeContext } from "../context.ts";
import type { Exchange } from "../exchange.ts";
import { type FolderFormat, formatFolder } from "../folder-index.ts";
import { HttpError } from "../http-error.ts";
import type { Router } from "../router.ts";
import { encodeName, resolveSymlink } from "../symlink-target.ts";

/** What is served was made by whoever can push: it runs no scripts, and is of the type that it is said to be. */
const SAFE = {
  "x-content-type-options": "nosniff",
  "content-security-policy":
    "sandbox; default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; font-src 'self'",
};

const FORMATS: readonly FolderFormat[] = ["text/html", "application/json"];

/** Serves `/serve/<hash>/<path>`: files and folders of a store path. */
export function serveRoutes(router: Router, context: BridgeContext): void {
  const { pathInfoService, directoryService, blobService, storeDir } = context;
  const serve = async (exchange: Exchange, hash: string) => {
    const { signal } = exchange;
    const pathInfo = await pathInfoService.get(decodeNixbase32(hash), { signal });
    if (pathInfo === undefined) throw new HttpError(404, `There is no store path ${hash} here`);
    const names = namesOf(exchange.target);
    const isFolder = names.at(-1)?.length === 0;
    const path = isFolder ? names.slice(0, -1) : names;
    const { node, depth } = await walk(directoryService, pathInfo.node, path, signal);
    if (node.type === "symlink") {
      const from = [Buffer.from(`${pathInfo.storePath}`), ...path.slice(0, depth)];
      const rest = names.slice(depth);
      const to = resolveSymlink(from, node.target, storeDir);
      const location = [to.hashPart, ...to.names.map(encodeName), ...rest.map(encodeName)];
      redirect(exchange, `${"../".repeat(names.length)}${location.join("/")}`);
    } else if (depth < path.length) throw nothingThere(path);
    else if (node.type === "directory") {
      if (isFolder) await sendFolder(exchange, node, directoryService, signal);
      else redirect(exchange, `./${path.length > 0 ? encodeName(path.at(-1)!) : hash}/`);
    } else {
      if (isFolder && path.length > 0) throw nothingThere(path);
      const name = path.at(-1)?.toString() ?? pathInfo.storePath.name;
      await sendFile(exchange, node, name, blobService);
    }
  };
  router.get("/serve/:hash", (exchange, { hash = "" }) => serve(exchange, hash));
  router.get("/serve/:hash/*", (exchange, { hash = "" }) => serve(exchange, hash));
}

/** Returns the names behind the hash part, percent-decoded. The last is empty behind a slash. */
function namesOf(target: string): Buffer[] {
  const [path = ""] = target.split(/[?#]/, 1);
  const [, , , ...names] = path.split("/");
  const decode = (_: string, hex: string) => String.fromCharCode(Number.parseInt(hex, 16));
  return names.map((name) => Buffer.from(name.replace(/%([0-9a-f]{2})/gi, decode), "latin1"));
}

/** Walks along a path up to its end, or to what is no folder. `depth` is how many names it went. */
async function walk(
  directoryService: DirectoryService,
  root: Node,
  path: readonly Buffer[],
  signal: AbortSignal,
): Promise<{ node: Node; depth: number }> {
  let node = root;
  for (const [depth, bytes] of path.entries()) {
    if (node.type !== "directory") return { node, depth };
    const name = pathComponent(bytes);
    const next: Node | undefined = (await readFolder(directoryService, node, signal)).get(name);
    if (next === undefined) throw nothingThere(path);
    node = next;
  }
  return { node, depth: path.length };
}

async function readFolder(
  directoryService: DirectoryService,
  { digest }: DirectoryNode,
  signal: AbortSignal,
): Promise<Directory> {
  const directory = await directoryService.get(digest, { signal });
  if (directory !== undefined) return directory;
  throw new CastoreError("data_loss", `Cannot serve directory ${digest}: it is missing`);
}

async function sendFolder(
  exchange: Exchange,
  node: DirectoryNode,
  directoryService: DirectoryService,
  signal: AbortSignal,
): Promise<void> {
  const accept = { headers: { accept: exchange.header("accept") } };
  const format = new Negotiator(accept).mediaType([...FORMATS]) as FolderFormat | undefined;
  if (format === undefined) throw new HttpError(406, `Expected to accept ${FORMATS.join(" or ")}`);
  const body = formatFolder(await readFolder(directoryService, node, signal), format);
  const type = { "content-type": `${format}; charset=utf-8`, vary: "accept" };
  exchange.send(200, body, { ...SAFE, ...type });
}

async function sendFile(
  exchange: Exchange,
  { digest }: FileNode,
  name: string,
  blobService: BlobService,
): Promise<void> {
  const type = lookup(name) ?? "application/octet-stream";
  const isText = type.startsWith("text/");
  const headers = { ...SAFE, "content-type": isText ? `${type}; charset=utf-8` : type };
  await exchange.sendContent(await blobContent(digest, blobService, headers, exchange.signal));
}

function redirect(exchange: Exchange, location: string): void {
  exchange.text(302, `It is at ${location}`, { location });
}

function nothingThere(path: readonly Buffer[]): HttpError {
  return new HttpError(404, `There is nothing at ${JSON.stringify(path.join("/"))}`);
}
