import { BlockList, isIPv4, isIPv6 } from "node:net";
import { CastoreError } from "@tvix/castore";
import { hasEscapedBytes } from "../arguments.ts";

/** An address on which a server accepts connections. */
export type ListenAddress =
  | TcpListenAddress
  | UnixListenAddress
  | AbstractListenAddress
  | InheritedListenAddress
  | StdioListenAddress;

/** A TCP port of one host. */
interface TcpListenAddress {
  readonly kind: "tcp";
  /**
   * An IPv4 address, an IPv6 address without brackets, or a host name. `localhost` means both
   * loopback addresses, 127.0.0.1 and ::1, as far as the machine has them.
   */
  readonly host: string;
  /** 0 to 65535, where 0 lets the system choose one. */
  readonly port: number;
}

/** A unix socket. */
interface UnixListenAddress {
  readonly kind: "unix";
  /** Path of the socket file, absolute or relative. */
  readonly path: string;
}

/** A unix socket in the abstract namespace of Linux, without a file. */
interface AbstractListenAddress {
  readonly kind: "abstract";
  /** Without the `@` before it. */
  readonly name: string;
}

/** Sockets that whoever started this process opened, as systemd does for a socket unit. */
interface InheritedListenAddress {
  readonly kind: "inherited";
  /** Those with this name. Default: all. */
  readonly name: string | undefined;
}

/** The one connection that is on stdin, as inetd and systemd (`Accept=yes`) start a process. */
interface StdioListenAddress {
  readonly kind: "stdio";
}

/** Longest path of a unix socket in bytes, without the NUL at its end; also the longest abstract name. */
const MAX_UNIX_PATH_BYTES = process.platform === "darwin" ? 103 : 107;

const HOST_NAME = /^(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.?$/;

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

const STDIO: ReadonlySet<string> = new Set(["inetd", "stdio", "-"]);

/** The name stands for a socket of systemd: FileDescriptorName= in systemd.socket(5). */
const INHERITED = /^sd[-_]listen(?:[-_]unix)?(?::(?<name>.*))?$/is;

/**
 * Parses what `--listen-address` takes:
 *
 * - `host:port` with an IPv4 address or a name, or `[IPv6]:port`
 * - the path of a unix socket, which contains a `/` or follows the prefix `unix:`
 * - `@name`, a unix socket in the abstract namespace
 * - `sd-listen`, all sockets that systemd passed, or `sd-listen:name`, those with a name
 * - `inetd`, the connection on stdin
 *
 * @throws CastoreError `invalid_argument` for anything else
 */
export function parseListenAddress(text: string): ListenAddress {
  if (STDIO.has(text.toLowerCase())) return { kind: "stdio" };
  const inherited = INHERITED.exec(text);
  if (inherited) return inheritedAddress(text, inherited.groups?.name);
  if (text.startsWith("@")) return abstractAddress(text);
  if (text.startsWith("unix:")) return unixAddress(text, text.slice("unix:".length));
  if (/^[a-z][a-z0-9+.-]*:\//i.test(text)) throw refuse(text, "an address with a scheme");
  if (/^(?:\[[^/]*\]|[^/:]*):\d+\//.test(text)) throw refuse(text, "a path after the port");
  if (text.includes("/")) return unixAddress(text, text);
  return tcpAddress(text);
}

function unixAddress(text: string, path: string): UnixListenAddress {
  if (path === "") throw refuse(text, "an empty path");
  if (path.includes("\0")) throw refuse(text, "a path with a NUL character");
  if (hasEscapedBytes(path)) throw refuse(text, "a path with bytes that are not UTF-8");
  if (path.endsWith("/")) throw refuse(text, "the path of a folder");
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_UNIX_PATH_BYTES) {
    throw refuse(
      text,
      `a path of ${bytes} bytes, more than the ${MAX_UNIX_PATH_BYTES} of a socket`,
    );
  }
  return { kind: "unix", path };
}

function abstractAddress(text: string): AbstractListenAddress {
  if (process.platform !== "linux") throw refuse(text, "an abstract name, which only Linux has");
  const name = text.slice(1);
  if (name === "") throw refuse(text, "an empty name");
  if (name.includes("\0")) throw refuse(text, "a name with a NUL character");
  if (hasEscapedBytes(name)) throw refuse(text, "a name with bytes that are not UTF-8");
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_UNIX_PATH_BYTES) {
    throw refuse(
      text,
      `a name of ${bytes} bytes, more than the ${MAX_UNIX_PATH_BYTES} of a socket`,
    );
  }
  return { kind: "abstract", name };
}

function inheritedAddress(text: string, name: string | undefined): InheritedListenAddress {
  if (name === "") throw refuse(text, "an empty name");
  if (name?.includes(":"))
    throw refuse(text, "a name with a colon, which no socket of systemd has");
  return { kind: "inherited", name: name === "*" ? undefined : name };
}

function tcpAddress(text: string): TcpListenAddress {
  const colon = text.lastIndexOf(":");
  if (colon === -1) throw refuse(text, "neither a port nor a path");
  const port = parsePort(text, text.slice(colon + 1));
  const host = text.slice(0, colon);
  if (host.startsWith("[") && host.endsWith("]")) {
    const address = host.slice(1, -1);
    if (!isIPv6(address)) throw refuse(text, `"${address}", which is no IPv6 address`);
    return { kind: "tcp", host: address, port };
  }
  if (host === "") throw refuse(text, "no host; [::] stands for all interfaces");
  if (host.includes(":")) throw refuse(text, "colons outside of brackets");
  if (!isIPv4(host) && (!HOST_NAME.test(host) || /^[0-9.]+$/.test(host))) {
    throw refuse(text, `"${host}", which is neither an IPv4 address nor a host name`);
  }
  return { kind: "tcp", host, port };
}

function parsePort(text: string, port: string): number {
  if (!/^(?:0|[1-9][0-9]{0,4})$/.test(port) || Number(port) > 65535) {
    throw refuse(text, `the port "${port}" instead of one from 0 to 65535`);
  }
  return Number(port);
}

/** Tells whether only this machine can reach a host. Host names other than `localhost` count as not local. */
export function isLoopback(host: string): boolean {
  if (isIPv4(host)) return loopback.check(host, "ipv4");
  if (isIPv6(host)) return loopback.check(host.replace(/%.*$/, ""), "ipv6");
  return host.toLowerCase() === "localhost";
}

function refuse(text: string, found: string): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot listen on ${JSON.stringify(text)}: expected "host:port", "[IPv6]:port", the path of a unix socket, "@name", "sd-listen", "sd-listen:name" or "inetd", found ${found}`,
  );
}

/** Formats an address in the syntax of {@link parseListenAddress}. */
export function formatTcpAddress(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
