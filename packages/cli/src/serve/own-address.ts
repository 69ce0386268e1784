import { resolve } from "node:path";
import { CastoreError } from "@tvix/castore";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ServerOptions } from "../options/server-options.ts";
import { parseListenAddress } from "../server/listen-address.ts";

/** Hosts by which a machine reaches itself, or on which it listens for that. */
const OWN_HOSTS = ["localhost", "127.0.0.1", "::1", "0.0.0.0", "::"];

/**
 * Refuses addresses of stores on which the daemon listens itself, as with variables that were set for its clients: each call
 * would make another one, without end.
 *
 * @throws CastoreError `invalid_argument` naming the address
 */
export function refuseOwnAddress({
  listenAddress,
  blobServiceAddr,
  directoryServiceAddr,
  pathInfoServiceAddr,
}: ServerOptions & ServiceOptions): void {
  for (const address of [blobServiceAddr, directoryServiceAddr, pathInfoServiceAddr]) {
    if (address === undefined || !listenAddress.some((own) => leadsTo(address, own))) continue;
    const [shown] = address.split("?", 1);
    throw new CastoreError(
      "invalid_argument",
      `Cannot use the store at ${shown}: expected another store, found the address that the daemon listens on`,
    );
  }
}

/** Whether an address of a store is one that a server listens on. */
function leadsTo(address: string, listenAddress: string): boolean {
  if (!/^grpc\+(https?|unix):\/\//.test(address) || !URL.canParse(address)) return false;
  const { protocol, hostname, port, pathname } = new URL(address);
  const own = parseListenAddress(listenAddress);
  if (own.kind === "unix") {
    return protocol === "grpc+unix:" && decodeURIComponent(pathname) === resolve(own.path);
  }
  const usualPort = protocol === "grpc+https:" ? 443 : 80;
  if (own.kind !== "tcp" || Number(port || usualPort) !== own.port) return false;
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  return host === own.host || [host, own.host].every((one) => OWN_HOSTS.includes(one));
}
