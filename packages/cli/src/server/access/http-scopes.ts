import type { Scope } from "./scope.ts";

/** What only looks something up although it is a POST. */
const LOOKUPS: ReadonlySet<string> = new Set(["/get-missing", "/local/get-missing"]);

/** Returns the scope that a request to the binary cache needs. An unknown method needs `admin`. */
export function scopeOfRequest(method: string | undefined, path: string): Scope {
  if (method === "GET" || method === "HEAD") return "read";
  if (method === "POST" && LOOKUPS.has(path)) return "read";
  return method === "PUT" ? "write" : "admin";
}
