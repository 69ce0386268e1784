import { CastoreError } from "../model/errors.ts";
import { suggestAddress } from "./meant-address.ts";

/** A parsed service address, such as `pack:///var/lib/store?zstd_level=3`. */
export interface ServiceAddress {
  /** As it was given. */
  readonly text: string;
  /** The same for messages: without the query, where secrets are. */
  readonly shown: string;
  /** What stands before the colon. */
  readonly scheme: string;
  /** Host and port; empty if there are none. */
  readonly host: string;
  /** The path, percent-decoded; empty if there is none. */
  readonly path: string;
  /** The query, each key once, percent-decoded. A plus sign is one: it is in other addresses, and in keys. */
  readonly query: Readonly<Record<string, string>>;
}

const MAX_PORT = 65_535;

const SCHEME = /^[a-z][a-z0-9+.-]*:\/\//;

/**
 * Takes a service address apart.
 *
 * @param schemes schemes that are valid, for what an error suggests. Default: none is suggested
 * @throws CastoreError `invalid_argument` if it is no URL with `//`, has credentials or a fragment, or
 *   repeats a key of the query
 */
export function parseServiceAddress(text: string, schemes: readonly string[] = []): ServiceAddress {
  if (!SCHEME.test(text) || !URL.canParse(text)) {
    const shown = showUnparsed(text);
    throw addressError(shown, reasonAgainst(shown, schemes) + suggestAddress(shown, schemes));
  }
  const shown = withoutQuery(text);
  const url = new URL(text);
  if (url.username !== "" || url.password !== "") {
    throw new CastoreError(
      "invalid_argument",
      `Cannot use the "${url.protocol}" address: expected no credentials in it`, // so not quoted
    );
  }
  if (text.includes("#")) {
    throw addressError(shown, 'expected no fragment: in a value, "#" is written as %23');
  }
  const query = parseQuery(url.search.slice(1), shown);
  const path = decode(url.pathname);
  if (path === undefined) {
    throw addressError(shown, `expected percent-encoded UTF-8, found path "${url.pathname}"`);
  }
  if (path.includes("\0")) throw addressError(shown, "expected no NUL in the path");
  return { text, shown, scheme: url.protocol.slice(0, -1), host: url.host, path, query };
}

/** Returns why a text is no address. */
function reasonAgainst(shown: string, schemes: readonly string[]): string {
  const [, port] = /^[^/]*\/\/[^/?]*:(\d+)(?:[/?]|$)/.exec(shown) ?? [];
  if (Number(port) > MAX_PORT) return `expected a port up to ${MAX_PORT}, found "${port}"`;
  const isOfServices = schemes.length === 0 || schemes.includes("grpc+http");
  const examples = isOfServices
    ? ["memory://", "grpc+http://localhost:8000"]
    : schemes.map((scheme) => `${scheme}://...`);
  return `expected a URL such as ${examples.map((url) => `"${url}"`).join(" or ")}`;
}

/** What can be shown of an address that may be none. */
export function showUnparsed(text: string): string {
  // Around an "@" may be credentials, wherever it stands.
  return text.includes("@") ? `${SCHEME.exec(text)?.[0] ?? ""}...` : withoutQuery(text);
}

function withoutQuery(text: string): string {
  return text.replace(/[?#].*/s, "?..."); // what follows an unencoded "#" may be the rest of a secret
}

function parseQuery(search: string, shown: string): Record<string, string> {
  const query: Record<string, string> = {};
  for (const pair of search.split("&").filter((pair) => pair !== "")) {
    const [, encodedKey, encodedValue] = /^([^=]*)=?(.*)$/s.exec(pair)!;
    const [key, value] = [decode(encodedKey!), decode(encodedValue!)];
    if (key === undefined || value === undefined) {
      throw addressError(shown, "expected percent-encoded UTF-8 in its query");
    }
    if (Object.hasOwn(query, key)) throw addressError(shown, `key "${key}" stands twice`);
    query[key] = value;
  }
  return query;
}

/** Undoes percent-encoding; `undefined` for what is none of UTF-8. */
function decode(encoded: string): string | undefined {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
}

/**
 * The keys of an address: those of its query, and those that the rest of it stands for.
 *
 * @throws CastoreError `invalid_argument` for a key of the query that the rest stands for
 */
export function withKeys(
  { shown, query }: ServiceAddress,
  keys: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  for (const key of Object.keys(keys)) {
    if (Object.hasOwn(query, key)) {
      throw addressError(
        shown,
        `expected no key "${key}", for which stands what is before the query`,
      );
    }
  }
  return { ...query, ...keys };
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
  const { text, shown, host } = address;
  if (host !== "") {
    const [meant] = text.replace("://", ":///").split("?", 1);
    const reason = `expected no host, found "${host}"; did you mean "${meant}"?`;
    throw addressError(shown, reason);
  }
  if (address.path === "" || address.path === "/") {
    throw addressError(address.shown, `expected a path, found "${address.path}"`);
  }
  return address.path;
}

/** The error for an address that cannot be used. */
export function addressError(text: string, reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use address "${text}": ${reason}`);
}
