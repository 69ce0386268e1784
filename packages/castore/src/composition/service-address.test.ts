import { describe, expect, it } from "vitest";
import { expectNoHost, expectNoPath, expectPath, parseServiceAddress } from "./service-address.ts";

function refused(reason: string) {
  return expect.objectContaining({
    name: "CastoreError",
    code: "invalid_argument",
    message: expect.stringContaining(reason),
  });
}

describe("parseServiceAddress", () => {
  it.each([
    ["memory://", "memory", "", "", {}],
    ["pack:///var/lib/store", "pack", "", "/var/lib/store", {}],
    ["pack:///a?zstd_level=3&x=", "pack", "", "/a", { zstd_level: "3", x: "" }],
    ["grpc+http://localhost", "grpc+http", "localhost", "", {}],
    ["grpc+http://[::1]:12345", "grpc+http", "[::1]:12345", "", {}],
    ["grpc+unix:///path/to/somewhere", "grpc+unix", "", "/path/to/somewhere", {}],
    ["sqlite:///with%20space/%C3%A9%3F%23", "sqlite", "", "/with space/é?#", {}],
    ["pack:///who@where", "pack", "", "/who@where", {}],
    ["cache://?near=memory://", "cache", "", "", { near: "memory://" }],
    ["cache://?near=memory%3A%2F%2F", "cache", "", "", { near: "memory://" }],
  ])("takes %s apart", (text, scheme, host, path, query) => {
    expect(parseServiceAddress(text)).toMatchObject({ text, scheme, host, path, query });
  });

  it("has a query without the properties that every object has", () => {
    expect(parseServiceAddress("pack:///a?constructor=1").query).toHaveProperty("constructor", "1");
    expect(Object.keys(parseServiceAddress("pack:///a").query)).toEqual([]);
  });

  it.each([
    ["", "expected a URL"],
    ["memory", "expected a URL"],
    ["memory:", "expected a URL"],
    ["memory:/", "expected a URL"],
    ["//localhost", "expected a URL"],
    ["/var/lib/store", "expected a URL"],
    ["localhost:8000", "expected a URL"],
    [" memory://", "expected a URL"],
    ["Memory://", "expected a URL"],
    ["1://", "expected a URL"],
    ["grpc+http://localhost:99999", "expected a URL"],
    ["grpc+http://[::1", "expected a URL"],
    ["memory://#x", 'found "#x"'],
    ["pack:///a?x=1&y=2&x=1", 'key "x" stands twice'],
    ["pack:///a%ff", "expected percent-encoded UTF-8"],
    ["pack:///a%00b", "expected no NUL"],
  ])("refuses %j", (text, reason) => {
    expect(() => parseServiceAddress(text)).toThrow(refused(reason));
  });

  it.each([
    "grpc+https://me:secret@localhost",
    "grpc+https://:secret@localhost",
    "grpc+https://secret@localhost",
    "grpc+https://me:secret@localhost:99999",
    "grpc+https://me:sec/secret@localhost",
    "grpc+https://me:p@secret@localhost:99999",
    "grpc+https:me:secret@localhost",
    "GRPC+https://me:secret@localhost",
    "me:secret@localhost",
    "grpc+https://me:secret@localhost:99999/?x=@",
  ])("refuses credentials without repeating them: %s", (text) => {
    expect(() => parseServiceAddress(text)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.not.stringContaining("secret"),
      }),
    );
  });
});

describe("an expectation of an address", () => {
  it("is met or names what was found", () => {
    const bare = parseServiceAddress("x://");
    const full = parseServiceAddress("x://host:1/path");
    expect(() => expectNoHost(bare)).not.toThrow();
    expect(() => expectNoHost(full)).toThrow(refused('expected no host, found "host:1"'));
    expect(() => expectNoPath(bare)).not.toThrow();
    expect(() => expectNoPath(full)).toThrow(refused('expected no path, found "/path"'));
    expect(() => expectNoPath(parseServiceAddress("x:///"))).toThrow(refused('found "/"'));
    expect(expectPath(parseServiceAddress("x:///path/to"))).toBe("/path/to");
    expect(() => expectPath(full)).toThrow(refused("expected no host"));
    expect(() => expectPath(bare)).toThrow(refused('expected a path, found ""'));
    expect(() => expectPath(parseServiceAddress("x:///"))).toThrow(refused('found "/"'));
  });
});
