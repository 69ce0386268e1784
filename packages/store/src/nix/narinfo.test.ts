import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { NarInfo, type NarInfoFields } from "./narinfo.ts";
import { fingerprint, SigningKey, VerifyingKey } from "./signature.ts";
import { StorePath } from "./store-path.ts";

const VECTORS = new URL("../../../../vectors/narinfos-cache.nixos.org.txt", import.meta.url);
const TEXTS = readFileSync(VECTORS, "utf8")
  .trimEnd()
  .split("\n\n")
  .map((text) => `${text}\n`);
const CACHE_KEY = VerifyingKey.parse(
  "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
);

/** A narinfo that has every field, by name. */
const FIELDS = {
  StorePath: "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60",
  URL: "nar/1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d.nar.xz",
  Compression: "xz",
  FileHash: "sha256:1094wph9z4nwlgvsd53abfz8i117ykiv5dwnq9nnhz846s7xqd7d",
  FileSize: "114980",
  NarHash: "sha256:0lxjvvpr59c2mdram7ympy5ay741f180kv3349hvfc3f8nrmbqf6",
  NarSize: "464152",
  References: `${"0".repeat(32)}-a ${"1".repeat(32)}-b`,
  Deriver: "10dx1q4ivjb115y3h90mipaaz533nr0d-net-tools-1.60.drv",
  System: "x86_64-linux",
  Sig: `key-1:${Buffer.alloc(64, 1).toString("base64")}`,
  CA: "fixed:r:sha1:1ak1ymbmsfx7z8kh09jzkr3a4dvkrfjw",
  "X-Other": "any: thing  at all",
};

function withFields(changed: Partial<Record<keyof typeof FIELDS, string>> = {}): string {
  return Object.entries({ ...FIELDS, ...changed })
    .map(([field, value]) => `${field}: ${value}\n`)
    .join("");
}

function without(field: keyof typeof FIELDS): string {
  return withFields().replace(`${field}: ${FIELDS[field]}\n`, "");
}

const invalid = (reason: string) =>
  expect.objectContaining({
    name: "StoreError",
    code: "invalid_argument",
    message: expect.stringContaining(reason),
  });

describe("narinfos of cache.nixos.org", () => {
  it("are 500", () => expect(TEXTS.length).toBe(500));

  it("are written as they were", () => {
    for (const text of TEXTS) expect(`${NarInfo.parse(text)}`).toBe(text);
  });

  it("are the same when they are made of their fields", () => {
    for (const text of TEXTS) {
      const { references, ...narInfo } = NarInfo.parse(text);
      expect(`${NarInfo.from({ ...narInfo, references: NarInfo.parse(text).references })}`).toBe(
        text,
      );
    }
  });

  it("have good signatures, and none that is good for something else", () => {
    for (const text of TEXTS) {
      const narInfo = NarInfo.parse(text);
      const [signature] = narInfo.signatures;
      expect(CACHE_KEY.verify(fingerprint(narInfo), signature!)).toBe(true);
      const other = { ...signable(narInfo), narSize: narInfo.narSize + 1n };
      expect(CACHE_KEY.verify(fingerprint(other), signature!)).toBe(false);
    }
  });
});

function signable({ storePath, narSha256, narSize, references }: NarInfoFields) {
  return { storePath, narSha256, narSize, references };
}

describe("a narinfo", () => {
  it("has every field", () => {
    const narInfo = NarInfo.parse(withFields());
    expect(narInfo.storePath.name).toBe("net-tools-1.60");
    expect(narInfo.url).toBe(FIELDS.URL);
    expect(narInfo.compression).toBe("xz");
    expect(narInfo.fileHash?.algorithm).toBe("sha256");
    expect(narInfo.fileSize).toBe(114_980n);
    expect(narInfo.narSha256.length).toBe(32);
    expect(narInfo.narSize).toBe(464_152n);
    expect(narInfo.references.map(String).join(" ")).toBe(FIELDS.References);
    expect(narInfo.deriver?.name).toBe("net-tools-1.60");
    expect(narInfo.system).toBe("x86_64-linux");
    expect(narInfo.signatures).toEqual([{ name: "key-1", data: Buffer.alloc(64, 1) }]);
    expect(narInfo.ca).toMatchObject({ kind: "nar", hash: { algorithm: "sha1" } });
    expect(narInfo.unknown).toEqual([["X-Other", "any: thing  at all"]]);
    expect(`${narInfo}`).toBe(withFields());
  });

  it("may have only what it must have", () => {
    const { StorePath, URL, NarHash, NarSize } = FIELDS;
    const narInfo = NarInfo.parse(
      `URL: ${URL}\nNarHash: ${NarHash}\nStorePath: ${StorePath}\nNarSize: ${NarSize}\n`,
    );
    expect(narInfo.references).toEqual([]);
    expect(narInfo.signatures).toEqual([]);
    expect(narInfo.compression).toBeUndefined();
    expect(`${narInfo}`).toBe(
      `StorePath: ${StorePath}\nURL: ${URL}\nNarHash: ${NarHash}\nNarSize: ${NarSize}\nReferences: \n`,
    );
  });

  it("keeps signatures and unknown fields in their order", () => {
    const more = `Sig: key-0:${Buffer.alloc(64).toString("base64")}\nZ: 1\nA: 2\nZ: 1\n`;
    const narInfo = NarInfo.parse(withFields() + more);
    expect(narInfo.signatures.map(({ name }) => name)).toEqual(["key-1", "key-0"]);
    expect(narInfo.unknown.map(([field]) => field)).toEqual(["X-Other", "Z", "A", "Z"]);
    expect(`${NarInfo.parse(`${narInfo}`)}`).toBe(`${narInfo}`);
  });

  it.each(["hex", "base64", "sri"] as const)("may have hashes as %s", (form) => {
    const text = withFields();
    const digest = Buffer.from(NarInfo.parse(text).narSha256);
    const written = {
      hex: `sha256:${digest.toString("hex")}`,
      base64: `sha256:${digest.toString("base64")}`,
      sri: `sha256-${digest.toString("base64")}`,
    }[form];
    const narInfo = NarInfo.parse(withFields({ NarHash: written, FileHash: written }));
    expect(Buffer.from(narInfo.narSha256).equals(digest)).toBe(true);
    expect(`${narInfo}`).toBe(withFields({ FileHash: FIELDS.NarHash }));
  });

  it("may be of another store dir", () => {
    const text = withFields({ StorePath: FIELDS.StorePath.replace("/nix/store", "/other") });
    expect(NarInfo.parse(text, { storeDir: "/other" }).toString({ storeDir: "/other" })).toBe(text);
    expect(() => NarInfo.parse(text)).toThrow(
      invalid('line 1, StorePath: Cannot parse store path "/other'),
    );
  });

  it("may be about names that begin with a dot", () => {
    const path = `${"0".repeat(32)}-.gitignore`;
    const text = withFields({
      StorePath: `/nix/store/${path}`,
      References: `${path} ${"1".repeat(32)}-.src.tar.gz`,
      Deriver: `${path}.drv`,
    });
    const narInfo = NarInfo.parse(text);
    expect(narInfo.storePath.name).toBe(".gitignore");
    expect(narInfo.references.map(({ name }) => name)).toEqual([".gitignore", ".src.tar.gz"]);
    expect(narInfo.deriver?.name).toBe(".gitignore");
    expect(`${narInfo}`).toBe(text);
  });

  it("shows no control characters of what it refuses, and little of it", () => {
    const gzip = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i % 256)).toString();
    for (const text of [`${gzip}\n`, withFields({ CA: gzip.replaceAll("\n", "") })]) {
      expect(() => NarInfo.parse(text)).toThrow(/^[^\p{Cc}]{1,5000}$/u);
    }
  });

  it("may not know its deriver", () => {
    expect(NarInfo.parse(withFields({ Deriver: "unknown-deriver" })).deriver).toBeUndefined();
  });

  it("is signed", () => {
    const key = SigningKey.generate("key-1");
    const unsigned = NarInfo.parse(without("Sig"));
    const fields = { ...unsigned, references: unsigned.references };
    const signed = NarInfo.from({ ...fields, signatures: [key.sign(fingerprint(unsigned))] });
    const read = NarInfo.parse(`${signed}`);
    expect(key.verifyingKey.verify(fingerprint(read), read.signatures[0]!)).toBe(true);
  });

  it.each([
    ["without a store path", without("StorePath"), 'a field "StorePath", found none'],
    ["without a URL", without("URL"), 'a field "URL", found none'],
    ["without a NAR hash", without("NarHash"), 'a field "NarHash", found none'],
    ["without a NAR size", without("NarSize"), 'a field "NarSize", found none'],
    ["that is empty", "", 'a field "StorePath", found none'],
    ["that is cut", withFields().slice(0, -1), "line 13: expected a line feed"],
    ["with an empty line", `\n${withFields()}`, 'line 1: expected "Field: value"'],
    [
      "with a line that is no field",
      `${withFields()}x\n`,
      'line 14: expected "Field: value", found "x"',
    ],
    ["with a field without a name", `: x\n${withFields()}`, 'line 1: expected "Field: value"'],
    ["with no space after a colon", `URL:x\n`, "line 1: expected"],
    ["with a field twice", `${withFields()}URL: x\n`, 'line 14: expected the field "URL" once'],
    ["with an empty URL", withFields({ URL: "" }), "line 2, URL: expected text"],
    ["with a carriage return", withFields().replaceAll("\n", "\r\n"), "line 1, StorePath: "],
    ["with a carriage return in a URL", withFields({ URL: "x\r" }), "line 2, URL: expected text"],
    ["with a NUL", withFields({ "X-Other": "\0" }), "line 13, X-Other: expected text"],
    ["with a control character in a field", `${withFields()}\x07: \n`, "line 14, \\u{7}: expected"],
    [
      "with a space in the compression",
      withFields({ Compression: "x z" }),
      "line 3, Compression: ",
    ],
    ["with another hash of the NAR", withFields({ NarHash: `md5:${"0".repeat(26)}` }), "by sha256"],
    ["with a short hash", withFields({ FileHash: "sha256:00" }), "line 4, FileHash: "],
    ["with a size of nothing", withFields({ NarSize: "0" }), "line 7, NarSize: expected more"],
    [
      "with a negative size",
      withFields({ FileSize: "-1" }),
      "line 5, FileSize: expected an unsigned",
    ],
    ["with a size in hexadecimal", withFields({ FileSize: "0x10" }), "line 5, FileSize: "],
    ["with a size that starts with 0", withFields({ FileSize: "010" }), "line 5, FileSize: "],
    ["with a size of 65 bits", withFields({ NarSize: `${2n ** 64n}` }), "line 7, NarSize: "],
    [
      "with an invalid reference",
      withFields({ References: "x" }),
      'line 8, References: Cannot parse store path "x"',
    ],
    [
      "with two spaces between references",
      withFields({ References: FIELDS.References.replace(" ", "  ") }),
      "line 8, References: ",
    ],
    [
      "with a space after references",
      withFields({ References: `${FIELDS.References} ` }),
      "line 8, References: Cannot parse store path",
    ],
    [
      "with absolute references",
      withFields({ References: FIELDS.StorePath }),
      "line 8, References: ",
    ],
    [
      "with a reference that begins with a dot and a dash",
      withFields({ References: `${"0".repeat(32)}-.-a` }),
      "line 8, References: ",
    ],
    [
      "with a reference without a name",
      withFields({ References: `${"0".repeat(32)}-` }),
      "found 0",
    ],
    [
      "with a deriver that is none",
      withFields({ Deriver: `${"0".repeat(32)}-a` }),
      "line 9, Deriver: ",
    ],
    ["with a broken deriver", withFields({ Deriver: "a.drv" }), "line 9, Deriver: "],
    ["with a broken signature", withFields({ Sig: "key-1:AAAA" }), "line 11, Sig: "],
    ["with a broken content address", withFields({ CA: "r:sha256:0" }), "line 12, CA: "],
  ])("is refused %s", (_, text, reason) => {
    expect(() => NarInfo.parse(text)).toThrow(invalid(reason));
  });

  const valid: NarInfoFields = {
    storePath: StorePath.parseAbsolute(FIELDS.StorePath),
    url: "nar/x.nar",
    narSha256: new Uint8Array(32),
    narSize: 1n,
    references: [],
    signatures: [],
  };

  it.each([
    ["a URL of two lines", { url: "a\nSig: x" }, "URL: expected text"],
    ["an empty compression", { compression: "" }, "Compression: expected text"],
    ["a negative size", { fileSize: -1n }, "FileSize: expected"],
    ["a short hash", { narSha256: new Uint8Array(31) }, "NarHash: "],
    ["a size of zero", { narSize: 0n }, "NarSize: expected more"],
    ["a size of 65 bits", { narSize: 2n ** 64n }, "NarSize: expected"],
    ["a system of two words", { system: "a b" }, "System: "],
    [
      "an unknown field that is known",
      { unknown: [["URL", "x"]] },
      "URL: expected the name of another",
    ],
    ["an unknown field of two lines", { unknown: [["X", "x\ny"]] }, "X: expected text"],
    ["an unknown field with a colon", { unknown: [["X: Y", "x"]] }, "expected the name of another"],
  ] as const)("is not made of %s", (_, changed, reason) => {
    expect(() => NarInfo.from({ ...valid, ...changed })).toThrow(invalid(reason));
  });
});
