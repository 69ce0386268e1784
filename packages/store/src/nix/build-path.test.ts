import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { buildCaPath, buildOutputPath, buildTextPath, placeholder } from "./build-path.ts";
import { parseContentAddress } from "./content-address.ts";
import type { HashAlgorithm } from "./nix-hash.ts";

const BASE_NAME = "00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432";

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

  // What `nix-store --add PATH` of Nix 2.8 prints, and the SHA-256 of what `nix-store --dump PATH` does.
  it.each([
    [
      "a folder of files, a folder, and a symlink",
      "5b708bb8ff76b8c257be39f7daeab464c1db8941f59ffbb30f9e4f707ab261d0",
      "g16m1wfi50ykbvyhhilv1mciwy39jvr0-tree",
    ],
    [
      "an empty folder",
      "a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a",
      "9ljssglw74jabzzsqsl3lim4d5jgh4ya-empty",
    ],
    [
      "an executable file",
      "d88e04f74f9bdf029710787dbc9351b6106d981206c0120b43943378a5bf2df5",
      "ylr2bzdrz4q54mzh92nxhxm43b1ps2v1-run",
    ],
    [
      "a symlink",
      "097d397e9b5826384eaa16c457715d1c1a51670313ead0f58566e0b232539cf1",
      "hr870lla96737rimmghg3vjcda4zk2y3-link",
    ],
  ])("builds what Nix builds of %s that is added", (_, narSha256, expected) => {
    const digest = Buffer.from(narSha256, "hex");
    const name = expected.slice(33);
    expect(`${buildCaPath(name, { kind: "nar", hash: { algorithm: "sha256", digest } })}`).toBe(
      expected,
    );
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
    const reversed = { references: references.toReversed() };
    expect(`${buildTextPath("refs.txt", references.join(" and "), reversed)}`).toBe(
      "kh41j8bxvxw8m99hpxq6ijh5mm21i5jq-refs.txt",
    );
  });

  it("builds what Nix builds of contents that refer to themselves and to others", () => {
    // A derivation wrote its own path and that of a text "b" into its output. `nix store
    // make-content-addressed` of Nix 2.8 on that, and `nix path-info --json` for the content address.
    const ca = parseContentAddress(
      "fixed:r:sha256:0amz15q4s773mvvpnyib0m6b1fyh1034kcs29lyqzqs1g499bcf2",
    );
    const references = ["/nix/store/bf0j3lsybxdmpg3nhfsvjkd3x6pv98ck-b"];
    expect(`${buildCaPath("self", ca, { references, selfReference: true })}`).toBe(
      "givb9ir0mi8sb5djcwmh0w4wr964cz93-self",
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

describe("buildOutputPath", () => {
  it("builds what Nix builds of a derivation without inputs", () => {
    // `(derivation { name = "x"; builder = "b"; system = "s"; outputs = [ "out" "dev" ]; })` of Nix 2.8
    const text =
      'Derive([("dev","","",""),("out","","","")],[],[],"s","b",[],' +
      '[("builder","b"),("dev",""),("name","x"),("out",""),("outputs","out dev"),("system","s")])';
    const hash = createHash("sha256").update(text).digest();
    expect(`${buildOutputPath("x", hash, "out")}`).toBe("rk239pxig2bqki5yzraqj78g26ai4iqy-x");
    expect(`${buildOutputPath("x", hash, "dev")}`).toBe("g1qp5k3hapvsriswfzlw41x710w3klpp-x-dev");
  });

  it.each([
    ["x", 32, ""],
    ["x", 32, "a/b"],
    ["", 32, "out"],
    ["x", 31, "out"],
    ["x".repeat(209), 32, "dev"],
  ])("refuses the name %j, a hash of %d bytes and the output %j", (name, length, output) => {
    expect(() => buildOutputPath(name, new Uint8Array(length), output)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});

describe("placeholder", () => {
  // `builtins.placeholder` of Nix 2.8
  it.each([
    ["out", "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"],
    ["dev", "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz"],
  ])("stands for the output %s as in Nix", (output, expected) => {
    expect(placeholder(output)).toBe(expected);
  });
});
