import { describe, expect, it } from "vitest";
import { rulesOf, tokenWith } from "../../../test/tokens.ts";
import type { AccessRequest } from "./access-control.ts";
import { FailureLimit } from "./failure-limit.ts";
import { SCOPES } from "./scope.ts";
import { formatToken, newToken, type Token } from "./token.ts";
import { type AccessFailure, TokenAccess } from "./token-access.ts";

const PEER = "192.0.2.1:4711";

const request = (token: Token | string | undefined, fields: Partial<AccessRequest> = {}) => {
  const text = typeof token === "object" ? formatToken(token) : token;
  const authorization = text === undefined ? undefined : `Bearer ${text}`;
  return { scope: "read" as const, authorization, peer: PEER, ...fields };
};

/** The HTTP status of a request: 200 for one that is admitted. */
async function statusOf(access: TokenAccess, ...args: Parameters<typeof request>) {
  try {
    await access.admit(request(...args));
    return 200;
  } catch (error) {
    return (error as { httpStatus: number }).httpStatus;
  }
}

describe("TokenAccess", () => {
  it("admits what the scopes of a token include", async () => {
    for (const [given, scope] of SCOPES.entries()) {
      const { token, rule } = await tokenWith([scope]);
      const access = new TokenAccess(rulesOf([rule]));
      for (const [needed, scope] of SCOPES.entries()) {
        expect(await statusOf(access, token, { scope })).toBe(given >= needed ? 200 : 403);
      }
    }
  });

  it.each([
    [true, "read", 200],
    [true, "write", 401],
    [true, "admin", 401],
    [false, "read", 401],
  ] as const)(
    "where anonymous reading is %s, answers %s without a token by %i",
    async (reads, scope, status) => {
      const access = new TokenAccess(rulesOf([], reads));
      expect(await statusOf(access, undefined, { scope })).toBe(status);
    },
  );

  it("refuses a token that is not valid, even where none is needed", async () => {
    const { token, rule } = await tokenWith(["read"]);
    const access = new TokenAccess(rulesOf([rule], true));
    const wrong = { ...token, secret: newToken().secret };
    expect(await statusOf(access, wrong)).toBe(401);
    expect(await statusOf(access, newToken())).toBe(401);
    expect(await statusOf(access, "none")).toBe(401);
    expect(await statusOf(access, undefined, { authorization: "Digest x" })).toBe(401);
  });

  it("asks for user and password, as Nix needs it", async () => {
    const access = new TokenAccess(rulesOf([]));
    expect(() => access.admit(request(undefined))).toThrow(
      expect.objectContaining({ httpHeaders: { "www-authenticate": 'Basic realm="tvix-store"' } }),
    );
  });

  it("remembers a valid token, until the rules change", async () => {
    const { token, rule } = await tokenWith(["write"], { storeNames: ["a-*"] });
    const access = new TokenAccess(rulesOf([rule]));
    const grant = { tokenName: "write", client: token.id, storeNames: ["a-*"] };
    const first = access.admit(request(token));
    expect(first).toBeInstanceOf(Promise);
    expect(await first).toEqual(grant);
    expect(access.admit(request(token))).toEqual(grant);
    access.use(rulesOf([rule]));
    const again = access.admit(request(token));
    expect(again).toBeInstanceOf(Promise);
    expect(await again).toEqual(grant);
    access.use(rulesOf([]));
    expect(await statusOf(access, token)).toBe(401);
  });

  it("does not take over a check of an earlier secret", async () => {
    const { token, rule } = await tokenWith(["read"]);
    const { rule: other } = await tokenWith(["read"], { id: token.id });
    const access = new TokenAccess(rulesOf([rule]));
    const before = statusOf(access, token);
    access.use(rulesOf([{ ...other, id: token.id }]));
    const after = statusOf(access, token);
    expect([await before, await after]).toEqual([200, 401]);
    expect(await statusOf(access, token)).toBe(401);
  });

  it("refuses a token that has expired, also one that it remembers", async () => {
    const expiresMs = Date.now() + 3_600_000;
    const { token, rule } = await tokenWith(["read"], { expiresMs });
    const access = new TokenAccess(rulesOf([rule]));
    expect(await statusOf(access, token)).toBe(200);
    access.use(rulesOf([{ ...rule, expiresMs: Date.now() - 1 }]));
    await expect(access.admit(request(token))).rejects.toThrow("expired at");
    expect(() => access.admit(request(token))).toThrow("expired at");
  });

  it("limits failures, and lets those in who have a token", async () => {
    const { token, rule } = await tokenWith(["read"]);
    const { token: late, rule: lateRule } = await tokenWith(["read"]);
    const failures: AccessFailure[] = [];
    const access = new TokenAccess(rulesOf([rule, lateRule]), {
      failures: new FailureLimit({ burst: 3 }),
      onFailure: (failure) => failures.push(failure),
    });
    const wrong = { ...token, secret: newToken().secret };
    const statuses: number[] = [];
    for (let i = 0; i < 5; i++) statuses.push(await statusOf(access, newToken()));
    for (let i = 0; i < 5; i++) statuses.push(await statusOf(access, wrong));
    expect(statuses).toEqual([401, 401, 401, 429, 429, 401, 401, 401, 429, 429]);
    expect(failures).toHaveLength(6);
    expect(failures.at(-1)).toEqual({
      peer: PEER,
      reason: "the token has another secret",
      token: token.id,
    });
    expect(JSON.stringify(failures)).not.toContain(wrong.secret);
    // Whoever knows the id of a token keeps it out for their own address, and nobody else.
    expect(await statusOf(access, late)).toBe(200);
    expect(await statusOf(access, token, { peer: "192.0.2.2:4711" })).toBe(200);
    expect(await statusOf(access, token)).toBe(200);
    const throttled = { httpHeaders: { "retry-after": expect.stringMatching(/^[1-6]$/) } };
    await expect(access.admit(request(newToken()))).rejects.toMatchObject(throttled);
  });

  it("counts failures that come at once, and none of a token that is valid", async () => {
    const { token, rule } = await tokenWith(["read"]);
    const access = new TokenAccess(rulesOf([rule]), { failures: new FailureLimit({ burst: 3 }) });
    const atOnce = (tokens: readonly Token[]) =>
      Promise.all(tokens.map((token) => statusOf(access, token)));
    expect(await atOnce(Array(20).fill(token))).toEqual(Array(20).fill(200));
    const wrong = Array.from({ length: 20 }, () => ({ ...token, secret: newToken().secret }));
    const statuses = await atOnce(wrong);
    expect(statuses.filter((status) => status === 401)).toHaveLength(3);
    expect(statuses.filter((status) => status === 429)).toHaveLength(17);
  });
});
