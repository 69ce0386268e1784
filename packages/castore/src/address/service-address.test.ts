import fc from "fast-check";
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
    ["cache://?near=grpc+http://h:1", "cache", "", "", { near: "grpc+http://h:1" }],
    ["cache://?near=grpc%2Bhttp://h:1", "cache", "", "", { near: "grpc+http://h:1" }],
    ["pack:///a?x=a=b+c%20d&&y", "pack", "", "/a", { x: "a=b+c d", y: "" }],
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
    ["grpc+http://localhost:99999", 'expected a port up to 65535, found "99999"'],
    ["grpc+http://[::1", "expected a URL"],
    ["memory://#x", "expected no fragment"],
    ["memory://#", "expected no fragment"],
    ["pack:///a?x=100%", "expected percent-encoded UTF-8 in its query"],
    ["pack:///a?x=%ff", "expected percent-encoded UTF-8 in its query"],
    ["pack:///a?%ff", "expected percent-encoded UTF-8 in its query"],
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
    "grpc+https://me:a?secret@localhost:99999",
    "grpc+https://me:a#secret@localhost:99999",
    "grpc+https://localhost:99999/?x=@secret",
    "grpc+https://localhost:99999?key=secret",
    "grpc+https://localhost:99999#secret",
    "Memory://?key=secret",
    "memory:?key=secret",
    "pack:///a?key=half#secret",
    "pack:///a?key=secret&key=half",
    "pack:///a%ff?key=secret",
    "pack:///a?key=secret%",
    "pack:///a#secret",
  ])("refuses %s without repeating what may be secret", (text) => {
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

describe("an address that is put together", () => {
  const text = fc
    .string({ unit: "binary", minLength: 1 })
    .map((text) => text.replaceAll("\0", "0"));
  const name = text.filter((name) => name !== "." && name !== ".." && name.isWellFormed());
  const value = text.filter((value) => value.isWellFormed());
  const key = fc.stringMatching(/^[a-z][a-z_]{0,10}$/);
  const queryOf = (query: Readonly<Record<string, string>>) =>
    Object.entries(query)
      .map(([key, value]) => `${key}=${encodeURIComponent(value)}`)
      .join("&");

  it("is taken apart into what it was made of", () => {
    fc.assert(
      fc.property(
        fc.array(name, { minLength: 1, maxLength: 4 }),
        fc.dictionary(key, value, { maxKeys: 4 }),
        (names, query) => {
          const path = names.map((name) => `/${encodeURIComponent(name)}`).join("");
          const keys = queryOf(query);
          const address = parseServiceAddress(`pack://${path}${keys && `?${keys}`}`);
          expect(address.path).toBe(names.map((name) => `/${name}`).join(""));
          expect({ ...address.query }).toEqual({ ...query });
          expect(address.shown).not.toContain(keys || " ");
        },
      ),
      { seed: 5 },
    );
  });

  it("may stand in the query of another with keys of its own, encoded", () => {
    fc.assert(
      fc.property(fc.dictionary(key, value, { minKeys: 1, maxKeys: 4 }), (query) => {
        const near = `pack:///a?${queryOf(query)}`;
        const address = `combined://?${queryOf({ near, far: "memory://" })}`;
        const { query: halves } = parseServiceAddress(address);
        expect({ ...halves }).toEqual({ near, far: "memory://" });
        expect({ ...parseServiceAddress(halves.near!).query }).toEqual({ ...query });
      }),
      { seed: 5 },
    );
  });

  it("may stand in the query of another plain, as long as it has one key at most", () => {
    const scheme = fc.stringMatching(/^[a-z][a-z0-9+.-]{0,12}$/);
    const host = fc.constantFrom("", "localhost", "[::1]:12345", "bucket");
    const path = fc.array(fc.stringMatching(/^[A-Za-z0-9+._~!$'()*,;:@-]+$/), { maxLength: 3 });
    const keys = fc.option(fc.tuple(key, fc.stringMatching(/^[A-Za-z0-9+/:=.-]*$/)));
    const plain = fc.tuple(scheme, host, path, keys).map(([scheme, host, path, pair]) => {
      const query = pair === null ? "" : `?${pair.join("=")}`;
      return `${scheme}://${host}${path.map((name) => `/${name}`).join("")}${query}`;
    });
    fc.assert(
      fc.property(plain, plain, (near, far) => {
        const { query } = parseServiceAddress(`cache://?near=${near}&far=${far}`);
        expect({ ...query }).toEqual({ near, far });
      }),
      { seed: 5 },
    );
  });
});
