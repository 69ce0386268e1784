import { describe, expect, it } from "vitest";
import { CastoreError } from "../model/errors.ts";
import { retryRequest } from "./retry.ts";

/** A request that fails with each of some codes, one after the other, and then succeeds. */
function failing(...codes: CastoreError["code"][]) {
  const calls = { count: 0 };
  const request = async () => {
    const code = codes[calls.count++];
    if (code !== undefined) throw new CastoreError(code, `attempt ${calls.count} fails`);
    return "answer";
  };
  return { request, calls };
}

describe("retryRequest", () => {
  it("repeats a request while it is unavailable", async () => {
    const { request, calls } = failing("unavailable", "unavailable", "unavailable");
    expect(await retryRequest(request)).toBe("answer");
    expect(calls.count).toBe(4);
  });

  it("gives up after four attempts with the last error", async () => {
    const codes = new Array(10).fill("unavailable");
    const { request, calls } = failing(...codes);
    await expect(retryRequest(request)).rejects.toThrow("attempt 4 fails");
    expect(calls.count).toBe(4);
  });

  it("gives up after as many attempts as it is told", async () => {
    const { request, calls } = failing("unavailable", "unavailable");
    await expect(retryRequest(request, { attempts: 1 })).rejects.toThrow("attempt 1 fails");
    expect(calls.count).toBe(1);
  });

  it.each(["not_found", "permission_denied", "data_loss", "aborted"] as const)(
    "does not repeat a request that fails with %s",
    async (code) => {
      const { request, calls } = failing("unavailable", code);
      await expect(retryRequest(request)).rejects.toMatchObject({ code });
      expect(calls.count).toBe(2);
    },
  );

  it("repeats the codes that it is told, and no others", async () => {
    const codes = new Set(["aborted"] as const);
    expect(await retryRequest(failing("aborted").request, { codes })).toBe("answer");
    const { request, calls } = failing("unavailable");
    await expect(retryRequest(request, { codes })).rejects.toMatchObject({ code: "unavailable" });
    expect(calls.count).toBe(1);
  });

  it("does not repeat a failure that is no CastoreError", async () => {
    let calls = 0;
    const failing = async () => {
      calls += 1;
      throw new TypeError("a bug");
    };
    await expect(retryRequest(failing)).rejects.toThrow(TypeError);
    expect(calls).toBe(1);
  });

  it("makes no request once it is cancelled before", async () => {
    const reason = new Error("enough");
    const { request, calls } = failing();
    await expect(retryRequest(request, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(calls.count).toBe(0);
  });

  it("rejects during a pause when it is cancelled, and makes no further request", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const { request, calls } = failing("unavailable", "unavailable", "unavailable");
    const result = retryRequest(
      async () => {
        setImmediate(() => controller.abort(reason));
        return await request();
      },
      { signal: controller.signal },
    );
    await expect(result).rejects.toBe(reason);
    await new Promise((resolve) => setTimeout(resolve, 300)); // longer than the first pause
    expect(calls.count).toBe(1);
  });
});
