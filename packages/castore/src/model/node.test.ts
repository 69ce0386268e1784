import { describe, expect, it } from "vitest";
import { CastoreError } from "./errors.ts";
import { symlinkTarget } from "./node.ts";

describe("symlinkTarget", () => {
  it.each(["a", "/", "..", "../a//b/", "/nix/store/somewhereelse", "x".repeat(4095)])(
    "takes %j",
    (target) => {
      expect(Buffer.from(symlinkTarget(target)).toString()).toBe(target);
    },
  );

  it("takes bytes that are no UTF-8, as they are", () => {
    const bytes = Uint8Array.of(0xff, 0xfe, 0x01);
    expect(symlinkTarget(bytes)).toBe(bytes);
  });

  it.each([
    ["an empty target", "", '""', 0],
    ["a target with a NUL byte", "a\0", '"a\\x00"', 2],
    ["a target of 4096 bytes", "x".repeat(4096), `"${"x".repeat(100)}"... (4096 bytes)`, 4096],
  ])("refuses %s", (_name, target, quoted, length) => {
    for (const form of [target, new TextEncoder().encode(target)]) {
      expect(() => symlinkTarget(form)).toThrow(
        new CastoreError(
          "invalid_argument",
          `Cannot use symlink target ${quoted}: expected 1 to 4095 bytes without NUL, ` +
            `found ${length} bytes`,
        ),
      );
    }
  });
});
