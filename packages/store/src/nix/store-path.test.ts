import { describe, expect, it } from "vitest";
import { StorePath } from "./store-path.ts";

const BASE_NAME = "00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432";

describe("StorePath", () => {
  it("is parsed and formatted", () => {
    const storePath = StorePath.parse(BASE_NAME);
    expect(storePath.name).toBe("net-tools-1.60_p20170221182432");
    expect(storePath.hashPart.length).toBe(20);
    expect(`${storePath}`).toBe(BASE_NAME);
    expect(storePath.toAbsolutePath()).toBe(`/nix/store/${BASE_NAME}`);
    expect(storePath.toAbsolutePath("/other")).toBe(`/other/${BASE_NAME}`);
    expect(StorePath.parseAbsolute(`/nix/store/${BASE_NAME}`)).toEqual(storePath);
    expect(StorePath.parseAbsolute(`/other/${BASE_NAME}`, "/other")).toEqual(storePath);
  });

  it("is the same after it was formatted and parsed, whatever its parts", () => {
    const characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-_?=.";
    let state = 1;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % below;
    };
    for (let round = 0; round < 500; round++) {
      const hashPart = Uint8Array.from({ length: 20 }, () => random(256));
      const letters = Array.from({ length: random(211) }, () => characters[random(68)]);
      const storePath = StorePath.from(hashPart, `a${letters.join("")}`);
      expect(StorePath.parse(`${storePath}`)).toEqual(storePath);
      expect(StorePath.parseAbsolute(storePath.toAbsolutePath())).toEqual(storePath);
    }
  });

  it.each(["a", "x".repeat(211), "A-z0.9+_?=", "a..b"])("takes the name %s", (name) => {
    expect(StorePath.parse(`${BASE_NAME.slice(0, 33)}${name}`).name).toBe(name);
  });

  it.each([
    ["", "expected 32 characters"],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la", "expected 32 characters"],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-", "found 0"],
    [`00bgd045z0d4icpbc2yyz4gx48ak44la-${"x".repeat(212)}`, "found 212"],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-.hidden", 'start with "."'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-a/b", 'found "/"'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-a b", 'found " "'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-ä", 'found "ä"'],
    ["e0bgd045z0d4icpbc2yyz4gx48ak44la-a", '"e"'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44l-a", "expected 32 characters"],
  ])("refuses %s", (baseName, reason) => {
    expect(() => StorePath.parse(baseName)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });

  it.each(["/nix/store", `/nix/store/${BASE_NAME}/bin`, BASE_NAME, `/nix/stores/${BASE_NAME}`])(
    "refuses the absolute path %s",
    (path) => {
      expect(() => StorePath.parseAbsolute(path)).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    },
  );

  it.each([
    ["/nix/store", "", []],
    ["/nix/store", "/bin/sh", ["bin", "sh"]],
    ["/other", "/a b/.hidden/...", ["a b", ".hidden", "..."]],
    ["/some/where/else", "", []],
  ])("is found in a path below %s that goes on with %j", (storeDir, rest, names) => {
    const { storePath, ...found } = StorePath.parseBelow(
      `${storeDir}/${BASE_NAME}${rest}`,
      storeDir,
    );
    expect(`${storePath}`).toBe(BASE_NAME);
    expect(found.names).toEqual(names);
  });

  it.each([
    ["/nix/store/", "expected 32 characters"],
    [`/other/${BASE_NAME}/bin`, 'start with "/nix/store/"'],
    [`/nix/store/${BASE_NAME}/`, 'found ""'],
    [`/nix/store/${BASE_NAME}//bin`, 'found ""'],
    [`/nix/store/${BASE_NAME}/./bin`, 'found "."'],
    [`/nix/store/${BASE_NAME}/../bin`, 'found ".."'],
    [`/nix/store//${BASE_NAME}`, "expected 32 characters"],
  ])("is not found in %s", (path, reason) => {
    expect(() => StorePath.parseBelow(path)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });

  it("refuses a hash part of another length", () => {
    expect(() => StorePath.from(new Uint8Array(19), "a")).toThrow(/19 bytes.*expected 20/);
  });
});
