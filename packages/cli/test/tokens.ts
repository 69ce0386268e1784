import type { AuthRules, TokenRule } from "../src/server/access/auth-rules.ts";
import type { Scope } from "../src/server/access/scope.ts";
import { hashSecret, newToken, type Token } from "../src/server/access/token.ts";

/** Makes a token, and the rule for it, which has the scopes as its name and a hash that takes no time. */
export async function tokenWith(
  scopes: readonly Scope[],
  fields: Partial<TokenRule> = {},
): Promise<{ readonly token: Token; readonly rule: TokenRule }> {
  const token = newToken();
  const hash = await hashSecret(token.secret, 4);
  const rest = { storeNames: undefined, expiresMs: undefined };
  return { token, rule: { id: token.id, name: scopes.join(), hash, scopes, ...rest, ...fields } };
}

/** Makes the rules of an auth file. Default: nobody reads without a token. */
export function rulesOf(rules: readonly TokenRule[], anonymousReads = false): AuthRules {
  return { anonymousReads, tokens: new Map(rules.map((rule) => [rule.id, rule])) };
}
