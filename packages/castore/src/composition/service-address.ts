import type { z } from "zod";
import { CastoreError } from "../errors.ts";

/** A parsed service address, such as `pack:///var/lib/store?zstd_level=3`. */
export interface ServiceAddress {
  /** As it was given. */
  readonly text: string;
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
  if (url.hash !== "") throw addressError(text, `expected no fragment, found "${url.hash}"`);
  const query: Record<string, string> = {};
  for (const [key, value] of url.searchParams) {
    if (Object.hasOwn(query, key)) throw addressError(text, `key "${key}" stands twice`);
    query[key] = value;
  }
  let path: string;
  try {
    path = decodeURIComponent(url.pathname);
  } catch {
    throw addressError(text, `expected percent-encoded UTF-8, found path "${url.pathname}"`);
  }
  if (path.includes("\0")) throw addressError(text, "expected no NUL in the path");
  return { text, scheme: url.protocol.slice(0, -1), host: url.host, path, query };
}

/** Refuses an address that has a host. */
export function expectNoHost(address: ServiceAddress): void {
  if (address.host !== "") {
    throw addressError(address.text, `expected no host, found "${address.host}"`);
  }
}

/** Refuses an address that has a path. */
export function expectNoPath(address: ServiceAddress): void {
  if (address.path !== "") {
    throw addressError(address.text, `expected no path, found "${address.path}"`);
  }
}

/** Refuses an address that has keys. */
export function expectNoKeys(address: ServiceAddress): void {
  const [key] = Object.keys(address.query);
  if (key !== undefined) throw addressError(address.text, `expected no keys, found "${key}"`);
}

/** The path of an address that has to have one, other than `/`, and no host. */
export function expectPath(address: ServiceAddress): string {
  expectNoHost(address);
  if (address.path === "" || address.path === "/") {
    throw addressError(address.text, `expected a path, found "${address.path}"`);
  }
  return address.path;
}

/**
 * The keys of the query by a schema, which has to be strict: unknown keys are refused.
 *
 * @throws CastoreError `invalid_argument` naming the key and what was expected
 */
export function parseQuery<T extends z.ZodType>(address: ServiceAddress, schema: T): z.output<T> {
  const result = schema.safeParse(address.query);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const key = issue?.path.join(".");
  throw addressError(address.text, `${key ? `key "${key}": ` : ""}${issue?.message}`);
}

/** The error for an address that cannot be used. */
export function addressError(text: string, reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use address "${text}": ${reason}`);
}
