import { describe, expect, it } from "vitest";
import { buildCaPath } from "./build-path.ts";
import { nixHash } from "./nix-hash.ts";
import { isBaseNames, StorePath } from "./store-path.ts";

const BASE_NAME = "00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432";

/** Paths that `nix-store --add` of Nix 2.8 gives files that hold "x\n", by their names. */
const PATHS_OF_NIX: readonly (readonly [name: string, baseName: string])[] = [
  [".gitignore", "ayzgk29gjpwbgrh3p9qdy7rgbxirqg62-.gitignore"],
  [".src.tar.gz", "nkzzgfjfrahm5ay1m9mbkr0cmjkh7q8s-.src.tar.gz"],
  ["...", "8fbprsrmy007wwbrjfbhjgk05p7if31f-..."],
  ["..a", "srs21ypii76gx5639rb14kk50m23rmjz-..a"],
  [".a-b", "pnz5lc7p1nscbs11cv8gc7jhyl3430ph-.a-b"],
  ["..a-b", "w2r82chxnnfgidyviqhhmimvmlvwaqhz-..a-b"],
  ["...-a", "rq00g7ikp81s33gircbw98yd8b8a4nss-...-a"],
  [".._a", "g2wrz673d2hks429d9yicm7sqi5akhmz-.._a"],
  ["a.", "ryj733rxg2hk72p5gw78zcd07ifwpagd-a."],
  ["-", "756q14ry7v2qq5azw1y382dk1ymmis3d--"],
  ["-a", "yhfwy7sppcp29lxlhlfvj4rya9yy7b07--a"],
];

/** The NAR of such a file, by SHA-256: `nix-hash --type sha256` of it. */
const NAR_SHA256 = "ecb6c3c3b5ad697c989147f794ae3f5cf9d27f6e0358773280180f00828a6b42";

describe("StorePath", () => {
  it.each(PATHS_OF_NIX)("of a file named %s is that of Nix", (name, baseName) => {
    const hash = nixHash("sha256", Buffer.from(NAR_SHA256, "hex"));
    expect(`${buildCaPath(name, { kind: "nar", hash })}`).toBe(baseName);
    expect(`${StorePath.parse(baseName)}`).toBe(baseName);
  });

  it("is among base names, whichever dots it begins with, or the text is refused", () => {
    const names = [".", "..", ".-", "..-", ".-a", "..-a", "...", "...-", ".a", "..a", "..a-", "a"];
    const isStorePath = (baseName: string) => {
      try {
        return StorePath.parse(baseName).name !== "";
      } catch {
        return false;
      }
    };
    for (const first of names) {
      for (const second of names) {
        const paths = [first, second].map((name) => `${BASE_NAME.slice(0, 33)}${name}`);
        expect(isBaseNames(paths.join(" ")), paths.join(" ")).toBe(paths.every(isStorePath));
      }
    }
  });

  it("shows no control characters of what it refuses", () => {
    expect(() => StorePath.parse(`\x1b[2J\u202e${"x".repeat(1000)}`)).toThrow(
      /^[^\p{Cc}\p{Cf}]{1,500}$/u,
    );
  });

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
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-.", '"." before the first dash'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-..", '".." before the first dash'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-.-", '"." before the first dash'],
    ["00bgd045z0d4icpbc2yyz4gx48ak44la-..-a", '".." before the first dash'],
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
