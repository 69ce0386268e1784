import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenFile } from "./token-file.ts";

let folder: string;
let path: string;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
  folder = mkdtempSync(join(tmpdir(), "token-file-"));
  path = join(folder, "token");
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

describe("TokenFile", () => {
  it("has the token that is in the file, or was a second ago", async () => {
    writeFileSync(path, "one\n");
    const file = new TokenFile(path);
    expect(await file.authorization()).toBe("Bearer one");
    writeFileSync(path, " two ");
    expect(await file.authorization()).toBe("Bearer one");
    vi.advanceTimersByTime(1_001);
    expect(await file.authorization()).toBe("Bearer two");
  });

  it("recovers when the file was missing", async () => {
    const file = new TokenFile(path);
    await expect(file.authorization()).rejects.toMatchObject({
      code: "permission_denied",
      message: `Cannot use token file "${path}": no such file or directory`,
    });
    writeFileSync(path, "one");
    vi.advanceTimersByTime(1_001);
    expect(await file.authorization()).toBe("Bearer one");
  });

  it.each(["", "a b", "a\nb", "a\u0000", "ä", "x".repeat(10_000)])(
    "refuses %j, and does not repeat it",
    async (text) => {
      writeFileSync(path, text);
      await expect(new TokenFile(path).authorization()).rejects.toMatchObject({
        message: `Cannot use token file "${path}": expected a token in one line, found something else`,
      });
    },
  );
});
