import { describe, expect, it } from "vitest";
import { CastoreError } from "./errors.ts";
import { pathComponent } from "./path.ts";

describe("pathComponent", () => {
  it.each(["a", ".a", "a.", "...", ". ", "a b", "-", "\\", "ä", "x".repeat(255)])(
    "takes %j",
    (name) => {
      expect(Buffer.from(pathComponent(name)).toString()).toBe(name);
    },
  );

  it("takes bytes that are no UTF-8, as they are", () => {
    const bytes = Uint8Array.of(0xff, 0xfe, 0x01);
    expect(pathComponent(bytes)).toBe(bytes);
  });

  it.each([
    ["an empty name", "", 'Cannot use name "": expected at least 1 byte, found none'],
    ["a name with a slash", "a/b", 'Cannot use name "a/b": expected no "/"'],
    ["a slash", "/", 'Cannot use name "/": expected no "/"'],
    ["a name with a NUL byte", "a\0b", 'Cannot use name "a\\x00b": expected no NUL byte'],
    ["one dot", ".", 'Cannot use name ".": expected neither "." nor ".."'],
    ["two dots", "..", 'Cannot use name "..": expected neither "." nor ".."'],
    [
      "a name of 256 bytes",
      "x".repeat(256),
      `Cannot use name "${"x".repeat(100)}"... (256 bytes): expected at most 255 bytes, found 256`,
    ],
  ])("refuses %s", (_name, name, message) => {
    for (const form of [name, new TextEncoder().encode(name)]) {
      expect(() => pathComponent(form)).toThrow(new CastoreError("invalid_argument", message));
    }
  });

  it("counts bytes, not characters", () => {
    expect(pathComponent("ä".repeat(127)).length).toBe(254);
    expect(() => pathComponent("ä".repeat(128))).toThrow("expected at most 255 bytes, found 256");
  });
});
