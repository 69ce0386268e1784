import type { Scope } from "./scope.ts";

/** Paths that need no token: those that watch over a daemon have none. */
const PUBLIC_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

/** What only looks something up although it is a POST. */
const LOOKUPS: ReadonlySet<string> = new Set(["/get-missing", "/local/get-missing"]);

/** Returns the scope that a request needs; `undefined` for one that needs none. An unknown method needs `admin`. */
export function scopeOfRequest(method: string | undefined, path: string): Scope | undefined {
  const isRead = method === "GET" || method === "HEAD";
  if (isRead && PUBLIC_PATHS.has(path)) return undefined;
  if (isRead) return "read";
  if (method === "POST" && LOOKUPS.has(path)) return "read";
  return method === "PUT" ? "write" : "admin";
}
