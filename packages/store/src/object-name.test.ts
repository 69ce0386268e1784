import { describe, expect, it } from "vitest";
import { formatObjectName, parseObjectName } from "./object-name.ts";

const HASH = "00bgd045z0d4icpbc2yyz4gx48ak44la";
const BASE_NAME = `${HASH}-net-tools-1.60`;
const STORE_PATH = `/nix/store/${BASE_NAME}`;
const HEX = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
const BASE64 = "b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU=";

const parse = (text: string) => parseObjectName(Buffer.from(text));

describe("the name of something in a store", () => {
  it.each([
    [STORE_PATH, STORE_PATH],
    [`${STORE_PATH}/`, STORE_PATH],
    [`/nix/store//${BASE_NAME}/./bin//hello/`, `${STORE_PATH}/bin/hello`],
    [BASE_NAME, STORE_PATH],
    [`${BASE_NAME}/bin`, `${STORE_PATH}/bin`],
    [HASH, HASH],
    [`/nix/store/${HASH}/a b/...`, `${HASH}/a b/...`],
    [BASE64, BASE64],
    [`${BASE64}/bin/hello`, `${BASE64}/bin/hello`],
    [`b3:${HEX}`, BASE64],
    [`b3:${HEX.toUpperCase()}/`, BASE64],
    [`b3:${HEX}/${BASE_NAME}`, `${BASE64}/${BASE_NAME}`],
  ])("is parsed from %s", (text, formatted) => {
    expect(formatObjectName(parse(text))).toBe(formatted);
  });

  it("has a path of bytes", () => {
    const name = Buffer.concat([Buffer.from(`${HASH}/a`), Buffer.of(0xff, 0x0a, 0x2f, 0xe2)]);
    const path = parseObjectName(name).path.map((part) => [...part]);
    expect(path).toEqual([[0x61, 0xff, 0x0a], [0xe2]]);
  });

  it.each([
    ["", 'expected "/nix/store/HASH-NAME", "HASH-NAME", "HASH" (32 characters of nixbase32)'],
    ["hello", 'or "b3:DIGEST"'],
    ["/nix/store", "expected"],
    ["/nix/store/", "expected"],
    ["/usr/bin", "expected"],
    [`/nix/stores/${BASE_NAME}`, "expected"],
    [`/other/${BASE_NAME}`, "expected"],
    [HASH.replace("b", "e"), 'found "e"'],
    [`${HASH.replace("b", "e")}-name`, 'found "e"'],
    [`${HASH}-`, "expected 1 to 211 characters"],
    [`${HASH}-a b`, 'found " "'],
    [`${HASH}-ü`, "found"],
    [`${STORE_PATH}/../x`, 'without ".."'],
    [`${STORE_PATH}/${"a".repeat(256)}`, "expected at most 255 bytes"],
    [`${STORE_PATH}/a\0`, "no NUL"],
    [`b3:${HEX}0`, "expected"],
    [`b3:${HEX.slice(2)}`, "expected"],
    ["b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYV=", "Cannot parse digest"],
    ["b3:", "expected"],
  ])("is not parsed from %j", (text, reason) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });
});
