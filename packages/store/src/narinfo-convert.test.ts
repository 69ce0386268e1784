import { readFileSync } from "node:fs";
import { B3Digest } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { decodePathInfo, encodePathInfo } from "./convert.ts";
import { narInfoFromPathInfo, pathInfoFromNarInfo } from "./narinfo-convert.ts";
import { NarInfo } from "./nix/narinfo.ts";

const VECTORS = new URL("../../../vectors/narinfos-cache.nixos.org.txt", import.meta.url);
const TEXTS = readFileSync(VECTORS, "utf8").split("\n\n");
const NODE = {
  type: "file",
  digest: B3Digest.fromBytes(new Uint8Array(32)),
  size: 0n,
  executable: false,
} as const;

describe("a narinfo", () => {
  it("is the same after it was a PathInfo, was stored and became a narinfo again", () => {
    for (const text of TEXTS) {
      const narInfo = NarInfo.parse(`${text.trim()}\n`);
      const stored = decodePathInfo(encodePathInfo(pathInfoFromNarInfo(narInfo, NODE)));
      expect(stored.node).toEqual(NODE);
      const withoutSystem = NarInfo.from({
        ...narInfo,
        references: narInfo.references,
        system: undefined,
      });
      expect(`${narInfoFromPathInfo(stored, narInfo)}`).toBe(`${withoutSystem}`);
    }
  });
});
