import type { Scope } from "./scope.ts";

/** A request, as far as access control looks at it. */
export interface AccessRequest {
  /** The scope that it needs. */
  readonly scope: Scope;
  /** Its header `authorization`. */
  readonly authorization: string | undefined;
  /** The client, as `host:port` or `unix`. */
  readonly peer: string;
}

/** What an admitted request may do. */
export interface Grant {
  /** The token that it came with: its name, for logs. `undefined`: none. */
  readonly tokenName?: string;
  /** Whose limits it counts for: a token, or else an address. */
  readonly client: string;
  /** Globs of which one must match the name of each store path that it registers. `undefined`: any name. */
  readonly storeNames?: readonly string[];
}

/** Decides who may do what. */
export interface AccessControl {
  /**
   * Admits a request; at once where nothing has to be computed.
   *
   * @throws AccessRefusal, or rejects with it
   */
  admit(request: AccessRequest): Grant | Promise<Grant>;
}
