import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { buildCaPath, buildTextPath } from "./build-path.ts";
import type { HashAlgorithm } from "./nix-hash.ts";
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

  it("refuses a hash part of another length", () => {
    expect(() => StorePath.from(new Uint8Array(19), "a")).toThrow(/19 bytes.*expected 20/);
  });
});

describe("buildCaPath", () => {
  /** The NAR of a file that holds "contents" and a line feed. */
  const nar = Buffer.concat(
    ["nix-archive-1", "(", "type", "regular", "contents", "contents\n", ")"].map((token) => {
      const padded = Buffer.alloc(8 + Math.ceil(token.length / 8) * 8);
      padded.writeBigUInt64LE(BigInt(token.length));
      padded.write(token, 8);
      return padded;
    }),
  );
  const hash = (algorithm: HashAlgorithm, bytes: Uint8Array | string) => ({
    algorithm,
    digest: createHash(algorithm).update(bytes).digest(),
  });

  // What `nix-store --add-fixed [--recursive] ALGORITHM file` of Nix 2.8 prints.
  it.each([
    ["flat", "md5", "zi29lqf51q4s4xs7g8iklykj1rwvf1pg-file"],
    ["flat", "sha1", "fb1101as8qvy9pdv8wcjysr9bvsdxyv8-file"],
    ["flat", "sha256", "pzghf3za3xr8safwakbq7wfghxnl1gix-file"],
    ["flat", "sha512", "jlrhnlkr6ha6xhzn5adlizmag8acaf0c-file"],
    ["nar", "md5", "fhhbi30byvlifxwy5wb7i8aq6nq5z6jc-file"],
    ["nar", "sha1", "p3wiljviracfvrg8f57y5wfvix2wd3fc-file"],
    ["nar", "sha256", "cblv0c867jbjysil4yfrnjjmcgc7yyk7-file"],
    ["nar", "sha512", "3dhgqi6waacwm0rvfriwn2wvdgb8qfpi-file"],
  ] as const)("builds what Nix builds of a %s hash by %s", (kind, algorithm, expected) => {
    const bytes = kind === "nar" ? nar : "contents\n";
    expect(`${buildCaPath("file", { kind, hash: hash(algorithm, bytes) })}`).toBe(expected);
  });

  it("builds what builtins.toFile of Nix builds, with and without references", () => {
    expect(`${buildTextPath("plain.txt", "hello")}`).toBe(
      "lp8ca38ciq9nd9rggwpa375inl5gg0j1-plain.txt",
    );
    const references = [
      "/nix/store/nzfas95xmmqqs930nl13l9cfdh7v0zac-b",
      "/nix/store/draf2pm7skqzj8g3kv0bamg214p6sd70-a",
    ];
    expect(`${buildTextPath("refs.txt", references.join(" and "), { references })}`).toBe(
      "kh41j8bxvxw8m99hpxq6ijh5mm21i5jq-refs.txt",
    );
  });

  it("gives other paths for other references, itself, and store dirs", () => {
    const ca = { kind: "nar", hash: hash("sha256", nar) } as const;
    const references = [`/nix/store/${BASE_NAME}`];
    const paths = [
      buildCaPath("file", ca),
      buildCaPath("file", ca, { references }),
      buildCaPath("file", ca, { selfReference: true }),
      buildCaPath("file", ca, { storeDir: "/other" }),
    ].map(String);
    expect(new Set(paths).size).toBe(4);
  });

  it.each([
    ["references of a flat file", "flat", "sha256", { references: ["/nix/store/x"] }],
    ["references of a NAR by SHA-1", "nar", "sha1", { references: ["/nix/store/x"] }],
    ["a text that refers to itself", "text", "sha256", { selfReference: true }],
    ["a flat file that refers to itself", "flat", "sha256", { selfReference: true }],
  ] as const)("refuses %s", (_, kind, algorithm, options) => {
    expect(() => buildCaPath("file", { kind, hash: hash(algorithm, "x") }, options)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});
