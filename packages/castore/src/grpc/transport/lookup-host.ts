import { type LookupAddress, lookup } from "node:dns";
import type { LookupFunction } from "node:net";

/** What `localhost` is where no resolver knows it, such as without an /etc/hosts. */
const LOOPBACK: readonly LookupAddress[] = [
  { address: "127.0.0.1", family: 4 },
  { address: "::1", family: 6 },
];

/** Looks up the addresses of a host for a connection. `localhost` is this machine everywhere (RFC 6761, section 6.3). */
export const lookupHost: LookupFunction = (host, options, callback) => {
  lookup(host, options, (error, address, family) => {
    if (error === null || host !== "localhost") callback(error, address, family);
    else if (options.all) callback(null, [...LOOPBACK]);
    else callback(null, LOOPBACK[0]!.address, LOOPBACK[0]!.family);
  });
};
