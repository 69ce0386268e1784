import { readFileSync } from "node:fs";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { NodeSchema } from "@tvix/proto/castore";
import { type NARInfoSchema, PathInfoSchema } from "@tvix/proto/store";
import { describe, expect, it } from "vitest";
import { decodePathInfo, encodePathInfo, pathInfoFromProto } from "./convert.ts";

const VECTORS = new URL("../../../vectors/tree-expected.json", import.meta.url);
const vectors: { tree: string; storePath: string; narSize: number; pathInfo_base64: string }[] =
  JSON.parse(readFileSync(VECTORS, "utf8"));

const BASE_NAME = "00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432";
const HASH_PART = Buffer.from("8a12321522fd91efbd60ebb2481af88580f61600", "hex");

function message(
  narinfo: MessageInitShape<typeof NARInfoSchema>,
  fields: { name?: string; references?: Uint8Array[] } = {},
) {
  const file = { name: Buffer.from(fields.name ?? BASE_NAME), digest: new Uint8Array(32) };
  return create(PathInfoSchema, {
    node: { node: { case: "file", value: file } },
    references: fields.references,
    narinfo: { narSha256: new Uint8Array(32), ...narinfo },
  });
}

describe("a PathInfo", () => {
  it.each(vectors.map((vector) => [vector.tree, vector] as const))(
    "of tree %s is decoded and encoded to the bytes of the reference",
    (_, { pathInfo_base64, storePath, narSize }) => {
      const pathInfo = decodePathInfo(Buffer.from(pathInfo_base64, "base64"));
      expect(pathInfo.storePath.toAbsolutePath()).toBe(storePath);
      expect(pathInfo.narSize).toBe(BigInt(narSize));
      expect(pathInfo.ca?.kind).toBe("nar");
      expect(Buffer.from(encodePathInfo(pathInfo)).toString("base64")).toBe(pathInfo_base64);
    },
  );

  it("has references with their names, a deriver and signatures", () => {
    const pathInfo = pathInfoFromProto(
      message(
        {
          referenceNames: [BASE_NAME],
          deriver: { name: "x.drv", digest: HASH_PART },
          signatures: [{ name: "key-1", data: new Uint8Array(64) }],
        },
        { references: [HASH_PART] },
      ),
    );
    expect(pathInfo.references.map(String)).toEqual([BASE_NAME]);
    expect(pathInfo.deriver?.name).toBe("x.drv");
    expect(pathInfo.signatures[0]?.name).toBe("key-1");
  });

  it("has names that begin with a dot", () => {
    const dotted = `${BASE_NAME.slice(0, 33)}.gitignore`;
    const pathInfo = pathInfoFromProto(
      message(
        { referenceNames: [dotted], deriver: { name: ".gitignore", digest: HASH_PART } },
        { name: dotted, references: [HASH_PART] },
      ),
    );
    expect(`${pathInfo.storePath}`).toBe(dotted);
    expect(pathInfo.references.map(String)).toEqual([dotted]);
    expect(pathInfo.deriver?.name).toBe(".gitignore");
  });

  it.each([
    [
      "whose name is two dots and a dash",
      message({}, { name: `${BASE_NAME.slice(0, 33)}..-` }),
      "node: ",
    ],
    ["without a node", create(PathInfoSchema, { narinfo: {} }), "node: expected one"],
    [
      "with a node that is none",
      create(PathInfoSchema, { node: create(NodeSchema), narinfo: {} }),
      "node: ",
    ],
    [
      "without narinfo",
      create(PathInfoSchema, { node: message({}).node }),
      "narinfo: expected one",
    ],
    [
      "whose node name is no store path",
      message({}, { name: "hello" }),
      'node: Cannot parse store path "hello"',
    ],
    ["whose node has no name", message({}, { name: "" }), "node: Cannot use name"],
    ["with a short NAR hash", message({ narSha256: new Uint8Array(31) }), "found 31"],
    [
      "with a reference of the wrong length",
      message({ referenceNames: [BASE_NAME] }, { references: [new Uint8Array(19)] }),
      "references[0]: expected 20 bytes, found 19",
    ],
    [
      "with fewer reference names",
      message({}, { references: [HASH_PART] }),
      "reference_names: expected as many",
    ],
    [
      "with a reference name that is none",
      message({ referenceNames: ["x"] }, { references: [HASH_PART] }),
      "reference_names[0]: ",
    ],
    [
      "with a reference name of another reference",
      message({ referenceNames: [BASE_NAME] }, { references: [new Uint8Array(20)] }),
      `found "${BASE_NAME}"`,
    ],
    [
      "with an invalid deriver",
      message({ deriver: { name: "x y", digest: HASH_PART } }),
      "deriver: ",
    ],
    [
      "with a deriver of the wrong length",
      message({ deriver: { name: "x", digest: new Uint8Array(1) } }),
      "deriver: ",
    ],
    [
      "with a CA digest of the wrong length",
      message({ ca: { type: 1, digest: new Uint8Array(32) } }),
      "ca.digest: ",
    ],
    [
      "with an unknown kind of CA",
      message({ ca: { type: 9 as 8, digest: new Uint8Array(32) } }),
      "ca.type: expected 0 to 8, found 9",
    ],
    [
      "with a signature of the wrong length",
      message({ signatures: [{ name: "a", data: new Uint8Array(63) }] }),
      'signatures[0]: Cannot use signature of key "a": expected 64 bytes, found 63',
    ],
    [
      "with a signature without a name",
      message({ signatures: [{ name: "", data: new Uint8Array(64) }] }),
      "signatures[0]: ",
    ],
    [
      "with a signature whose name would end a line of a narinfo",
      message({ signatures: [{ name: "a\nCA", data: new Uint8Array(64) }] }),
      "signatures[0]: ",
    ],
  ])("is refused %s", (_, given, reason) => {
    expect(() => pathInfoFromProto(given)).toThrow(
      expect.objectContaining({
        name: "StoreError",
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });

  it("is refused when it is no message", () => {
    expect(() => decodePathInfo(Uint8Array.of(0xff))).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});
