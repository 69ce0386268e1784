import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { UploadLimits } from "./upload-limits.ts";

const NEVER = new AbortController().signal;

describe("UploadLimits", () => {
  it("has uploads wait for their turn, in order, and never for those of another client", async () => {
    const limits = new UploadLimits({ maxUploads: 3, maxUploadsPerClient: 2 });
    const begun: string[] = [];
    const enter = async (client: string, name: string) => {
      await limits.enter(client, NEVER);
      begun.push(name);
    };
    const all = ["a1", "a2", "a3", "b1", "b2", "c1"].map((name) => enter(name[0]!, name));
    await turn();
    expect(begun).toEqual(["a1", "a2", "b1"]);
    limits.leave("b");
    await turn();
    expect(begun).toEqual(["a1", "a2", "b1", "b2"]);
    limits.leave("a");
    await turn();
    expect(begun).toEqual(["a1", "a2", "b1", "b2", "a3"]);
    limits.leave("b");
    await Promise.all(all);
    expect(begun.at(-1)).toBe("c1");
  });

  it("refuses an upload that has waited too long, by whose limit it is", async () => {
    const limits = new UploadLimits({ maxUploads: 2, maxUploadsPerClient: 1, waitMs: 10 });
    await limits.enter("a", NEVER);
    await expect(limits.enter("a", NEVER)).rejects.toMatchObject({
      httpStatus: 429,
      httpHeaders: { "retry-after": "1" },
    });
    await limits.enter("b", NEVER);
    await expect(limits.enter("c", NEVER)).rejects.toMatchObject({ httpStatus: 503 });
    limits.leave("a");
    await limits.enter("c", NEVER);
  });

  it("forgets an upload that is cancelled while it waits", async () => {
    const limits = new UploadLimits({ maxUploads: 1 });
    await limits.enter("a", NEVER);
    const cancel = new AbortController();
    const waiting = limits.enter("b", cancel.signal);
    const next = limits.enter("c", NEVER);
    const reason = new Error("enough");
    cancel.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(limits.enter("d", cancel.signal)).rejects.toBe(reason);
    limits.leave("a");
    await next;
  });
});
