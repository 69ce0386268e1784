/** Scopes of a token, each of which includes those before it. */
export const SCOPES = ["read", "write", "admin"] as const;

/**
 * What a request needs, or a token grants: `read` to read the store, `write` to add to it, `admin` for everything else.
 */
export type Scope = (typeof SCOPES)[number];

/** Tells whether one of the granted scopes includes the needed one. */
export function includesScope(granted: readonly Scope[], needed: Scope): boolean {
  return granted.some((scope) => SCOPES.indexOf(scope) >= SCOPES.indexOf(needed));
}
