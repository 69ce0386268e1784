import { resolve } from "node:path";
import { CastoreError } from "@tvix/castore";
import type { TomlFile } from "@tvix/castore/toml";
import type { ServeOptions } from "../options/serve-options.ts";
import { parseListenAddress } from "../server/listen-address.ts";

/** Hosts by which a machine reaches itself, or on which it listens for that. */
const OWN_HOSTS = ["localhost", "127.0.0.1", "::1", "0.0.0.0", "::"];

/** Addresses of daemons and of binary caches. */
const SERVER = /^(?:(?:grpc|nix)\+)?(?:https?|unix):\/\//;

/**
 * Refuses stores and upstreams that are the server itself, as with variables that were set for its clients: each call would make
 * another one, without end. Those that others are made of are found as well.
 *
 * @param compositionFile the file that describes the stores, if it is not their addresses that do
 * @throws CastoreError `invalid_argument` naming the address
 */
export async function refuseOwnAddress(
  { listenAddress, upstream, ...options }: ServeOptions,
  compositionFile: TomlFile | undefined,
): Promise<void> {
  const { blobServiceAddr, directoryServiceAddr, pathInfoServiceAddr } = options;
  const stores =
    compositionFile === undefined
      ? [blobServiceAddr, directoryServiceAddr, pathInfoServiceAddr]
      : (await import("@tvix/castore/toml")).parseToml(compositionFile);
  for (const address of stringsIn([stores, upstream])) {
    if (!listenAddress.some((own) => leadsTo(address, own))) continue;
    const [shown] = address.split("?", 1);
    throw new CastoreError(
      "invalid_argument",
      `Cannot use the store at ${shown}: expected another store, found the address that the daemon listens on`,
    );
  }
}

/** Returns the strings in a value, at any depth, and the values of keys in those that are addresses. */
function stringsIn(value: unknown): string[] {
  if (typeof value === "object" && value !== null) return Object.values(value).flatMap(stringsIn);
  if (typeof value !== "string") return [];
  const [, query = ""] = value.split(/\?(.*)/s);
  const keys = new URLSearchParams(query.replaceAll("+", "%2B")); // a plus sign in an address is one
  return [value, ...stringsIn([...keys.values()])];
}

/** Whether an address is one of a server that listens there. */
function leadsTo(address: string, listenAddress: string): boolean {
  if (!SERVER.test(address) || !URL.canParse(address)) return false;
  const { protocol, hostname, port, pathname } = new URL(address);
  const own = parseListenAddress(listenAddress);
  if (own.kind === "unix") {
    return protocol === "grpc+unix:" && decodeURIComponent(pathname) === resolve(own.path);
  }
  const usualPort = /https:$/.test(protocol) ? 443 : 80;
  if (own.kind !== "tcp" || Number(port || usualPort) !== own.port) return false;
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  return host === own.host || [host, own.host].every((one) => OWN_HOSTS.includes(one));
}
