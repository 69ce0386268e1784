import { hash, randomBytes } from "node:crypto";
import { lruCache, SingleFlight } from "@tvix/castore";
import type { LRUCache } from "lru-cache";
import pLimit from "p-limit";
import type { AccessControl, AccessRequest, Grant } from "./access-control.ts";
import { AccessRefusal } from "./access-refusal.ts";
import type { AuthRules, TokenRule } from "./auth-rules.ts";
import { presentedToken } from "./credentials.ts";
import { FailureLimit, sourceOf } from "./failure-limit.ts";
import { includesScope, type Scope } from "./scope.ts";
import { isSecretOf, parseToken } from "./token.ts";

/** How many tokens are remembered once they were found valid. */
const MAX_REMEMBERED = 10_000;

/** How many hashes are computed at once, in threads that also compress and read files. */
const HASHES_AT_ONCE = 2;

/** How many further hashes may wait. */
const MAX_WAITING_HASHES = 100;

/** After how long a client that found too many hashes waiting may come again, in milliseconds. */
const BUSY_MS = 5_000;

/** Options of a {@link TokenAccess}. */
export interface TokenAccessOptions {
  /** Limits the failures of each source. */
  failures?: FailureLimit;
  /** Called for each failure that {@link FailureLimit} lets through, without any secret. */
  onFailure?: (failure: AccessFailure) => void;
}

/** A token that was not accepted. */
export interface AccessFailure {
  /** The client, as `host:port` or `unix`. */
  readonly peer: string;
  readonly reason: string;
  /** Id of the token, if there is one of this id. */
  readonly token?: string;
}

/**
 * Admits requests by their tokens. The hash of a secret is computed once: tokens that were found valid are remembered
 * until the rules change.
 *
 * Failures are counted for each source, wrong secrets of an existing token apart from everything else: whoever guesses
 * keeps nobody out who has a token, even if both come through the same proxy.
 */
export class TokenAccess implements AccessControl {
  readonly #failures: FailureLimit;
  readonly #onFailure: (failure: AccessFailure) => void;
  readonly #memoryKey = randomBytes(32).toString("base64");
  readonly #hashing = pLimit(HASHES_AT_ONCE);
  #rules: AuthRules;
  // By a keyed hash of the token. Both are replaced with the rules.
  #checks = new SingleFlight<boolean>();
  #valid = validTokens();

  constructor(rules: AuthRules, options: TokenAccessOptions = {}) {
    this.#rules = rules;
    this.#failures = options.failures ?? new FailureLimit();
    this.#onFailure = options.onFailure ?? (() => undefined);
  }

  /** Replaces the rules. Requests that were admitted go on. */
  use(rules: AuthRules): void {
    this.#rules = rules;
    this.#checks = new SingleFlight();
    this.#valid = validTokens();
  }

  admit({ scope, authorization, peer }: AccessRequest): Grant | Promise<Grant> {
    if (authorization === undefined) {
      if (scope === "read" && this.#rules.anonymousReads) return { client: sourceOf(peer) };
      throw unauthenticated(`expected a token with the scope "${scope}", found none`);
    }
    const text = presentedToken(authorization) ?? "";
    const key = hash("sha256", this.#memoryKey + text, "base64"); // a tenth of the time of an HMAC
    const known = this.#valid.get(key);
    return known ? grant(known, scope) : this.#check(text, key, scope, peer);
  }

  async #check(text: string, key: string, scope: Scope, peer: string): Promise<Grant> {
    const valid = this.#valid;
    const token = parseToken(text);
    const rule = token && this.#rules.tokens.get(token.id);
    const source = rule ? `${sourceOf(peer)} ${rule.id}` : sourceOf(peer);
    const waitMs = this.#failures.waitMs(source);
    if (waitMs > 0) {
      const message = "too many requests with a token that is not valid; try again later";
      throw new AccessRefusal("throttled", message, { retryMs: waitMs });
    }
    if (token === undefined || rule === undefined) {
      this.#failures.count(source);
      const reason = token ? "there is no such token" : "expected a token, found something else";
      this.#onFailure({ peer, reason });
      throw invalid();
    }
    // Requests with the same token wait for one check.
    const isValid = await this.#checks.run(key, async () => {
      if (this.#hashing.pendingCount >= MAX_WAITING_HASHES) {
        const message = "too many tokens are being checked; try again later";
        throw new AccessRefusal("throttled", message, { retryMs: BUSY_MS });
      }
      this.#failures.count(source); // before its outcome is known: many may come at once
      const isValid = await this.#hashing(() => isSecretOf(token.secret, rule.hash));
      if (isValid) this.#failures.forgive(source);
      else this.#onFailure({ peer, reason: "the token has another secret", token: rule.id });
      return isValid;
    });
    if (!isValid) throw invalid();
    valid.set(key, rule);
    return grant(rule, scope);
  }
}

function grant({ id, name, scopes, storeNames, expiresMs }: TokenRule, scope: Scope): Grant {
  if (expiresMs !== undefined && Date.now() >= expiresMs) {
    const expired = new Date(expiresMs).toISOString();
    throw unauthenticated(`the token ${JSON.stringify(name)} expired at ${expired}`);
  }
  if (!includesScope(scopes, scope)) {
    const found = scopes.map((scope) => `"${scope}"`).join(", ");
    const message = `expected a token with the scope "${scope}", found ${JSON.stringify(name)} with ${found}`;
    throw new AccessRefusal("forbidden", message);
  }
  return { tokenName: name, client: id, ...(storeNames && { storeNames }) };
}

/** Returns the refusal of a token, which does not tell what is wrong with it. */
function invalid(): AccessRefusal {
  return unauthenticated("the token is not valid");
}

function unauthenticated(message: string): AccessRefusal {
  return new AccessRefusal("unauthenticated", message);
}

function validTokens(): LRUCache<string, TokenRule> {
  return lruCache(MAX_REMEMBERED);
}
