import { CastoreError } from "../errors.ts";

/** A parsed service address, such as `pack:///var/lib/store?zstd_level=3`. */
export interface ServiceAddress {
  /** As it was given. */
  readonly text: string;
  /** The same for messages: without the query, where secrets may be. */
  readonly shown: string;
  /** What stands before the colon. */
  readonly scheme: string;
  /** Host and port; empty if there are none. */
  readonly host: string;
  /** The path, percent-decoded; empty if there is none. */
  readonly path: string;
  /** The query, each key once. */
  readonly query: Readonly<Record<string, string>>;
}

/**
 * Takes a service address apart.
 *
 * @throws CastoreError `invalid_argument` if it is no URL with `//`, has credentials or a fragment, or
 *   repeats a key of the query
 */
export function parseServiceAddress(text: string): ServiceAddress {
  if (!/^[a-z][a-z0-9+.-]*:\/\//.test(text) || !URL.canParse(text)) {
    const shown = text.replace(/^.*@/s, "...@"); // what stands before may be credentials
    throw addressError(shown, 'expected a URL such as "memory://" or "grpc+http://localhost:8000"');
  }
  const url = new URL(text);
  if (url.username !== "" || url.password !== "") {
    throw new CastoreError(
      "invalid_argument",
      `Cannot use the "${url.protocol}" address: expected no credentials in it`, // so not quoted
    );
  }
  const shown = text.replace(/\?[^#]*/s, "?...");
  if (url.hash !== "") throw addressError(shown, `expected no fragment, found "${url.hash}"`);
  const query: Record<string, string> = {};
  for (const [key, value] of url.searchParams) {
    if (Object.hasOwn(query, key)) throw addressError(shown, `key "${key}" stands twice`);
    query[key] = value;
  }
  let path: string;
  try {
    path = decodeURIComponent(url.pathname);
  } catch {
    throw addressError(shown, `expected percent-encoded UTF-8, found path "${url.pathname}"`);
  }
  if (path.includes("\0")) throw addressError(shown, "expected no NUL in the path");
  return { text, shown, scheme: url.protocol.slice(0, -1), host: url.host, path, query };
}

/** Refuses an address that has a host. */
export function expectNoHost(address: ServiceAddress): void {
  if (address.host !== "") {
    throw addressError(address.shown, `expected no host, found "${address.host}"`);
  }
}

/** Refuses an address that has a path. */
export function expectNoPath(address: ServiceAddress): void {
  if (address.path !== "") {
    throw addressError(address.shown, `expected no path, found "${address.path}"`);
  }
}

/** The path of an address that has to have one, other than `/`, and no host. */
export function expectPath(address: ServiceAddress): string {
  expectNoHost(address);
  if (address.path === "" || address.path === "/") {
    throw addressError(address.shown, `expected a path, found "${address.path}"`);
  }
  return address.path;
}

/** The error for an address that cannot be used. */
export function addressError(text: string, reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use address "${text}": ${reason}`);
}
