import { readFileSync } from "node:fs";
import { CastoreError, decodeDirectory, encodeDirectory } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { decodePathInfo, encodePathInfo } from "./convert.ts";
import { narInfoFromPathInfo, pathInfoFromNarInfo } from "./narinfo-convert.ts";
import { formatContentAddress, parseContentAddress } from "./nix/content-address.ts";
import { NarInfo } from "./nix/narinfo.ts";
import { SigningKey } from "./nix/signature.ts";
import { StorePath } from "./nix/store-path.ts";

const vector = (name: string) =>
  readFileSync(new URL(`../../../vectors/${name}`, import.meta.url), "utf8");

const TREES: { pathInfo_base64: string; directoriesRootToLeaves_base64: string[] }[] = JSON.parse(
  vector("tree-expected.json"),
);
const base64 = (text: string) => Buffer.from(text, "base64");

/** Short ones, in which a mutation meets every field. */
const NAR_INFOS = vector("narinfos-cache.nixos.org.txt")
  .split("\n\n")
  .map((text) => `${text.trim()}\n`)
  .filter((text) => text.length < 1500 || text.includes("CA: "))
  .slice(0, 40);

/** Messages with every field: references, signatures, a deriver, and a content address where there is one. */
const PATH_INFOS = [
  ...TREES.map((tree) => base64(tree.pathInfo_base64)),
  ...NAR_INFOS.map((text) => {
    const { node } = decodePathInfo(base64(TREES[0]!.pathInfo_base64));
    return Buffer.from(encodePathInfo(pathInfoFromNarInfo(NarInfo.parse(text), node)));
  }),
];
const DIRECTORIES = TREES.flatMap((tree) => tree.directoriesRootToLeaves_base64)
  .map(base64)
  .filter((bytes) => bytes.length > 0 && bytes.length < 5000)
  .slice(0, 30);

/** The same numbers every time. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Changes, removes, adds, repeats, moves or cuts off some bytes, once or a few times. */
function mutate(original: Buffer, random: (below: number) => number): Buffer {
  let bytes = Buffer.from(original);
  for (let left = 1 + random(3); left > 0; left--) {
    const at = random(bytes.length);
    const end = at + 1 + random(8);
    const [before, piece, after] = [
      bytes.subarray(0, at),
      bytes.subarray(at, end),
      bytes.subarray(end),
    ];
    const noise = Buffer.from([random(256)]);
    bytes = [
      () => Buffer.concat([before, noise, bytes.subarray(at + 1)]),
      () =>
        Buffer.concat([
          before,
          Buffer.from([(bytes[at] ?? 0) ^ (1 << random(8))]),
          bytes.subarray(at + 1),
        ]),
      () => Buffer.concat([before, noise, piece, after]),
      () => Buffer.concat([before, piece, piece, after]),
      () => Buffer.concat([before, after]),
      () => Buffer.concat([after, piece, before]),
      () => Buffer.from(before),
    ][random(7)]!();
  }
  return bytes;
}

/**
 * Gives `use` mutations of every original. It either refuses one as an invalid argument, or takes it and
 * gives what has to be the same after it was written and read again.
 */
function tryMutations(
  originals: readonly Buffer[],
  rounds: number,
  use: (bytes: Buffer) => { found: unknown; again: unknown },
): void {
  const random = numbers(originals.length);
  let refused = 0;
  for (const original of originals) {
    const { found, again } = use(original);
    expect(again).toEqual(found);
    for (let round = 0; round < rounds; round++) {
      const bytes = mutate(original, random);
      try {
        const { found, again } = use(bytes);
        expect(again, bytes.toString("base64")).toEqual(found);
      } catch (error) {
        if (!(error instanceof CastoreError)) throw error;
        expect(error.code, error.message).toBe("invalid_argument");
        refused += 1;
      }
    }
  }
  // Some mutations are valid, most are not.
  expect(refused).toBeGreaterThan((originals.length * rounds) / 3);
  expect(refused).toBeLessThan(originals.length * rounds);
}

describe("of input that was tampered with, nothing but what is valid is taken:", () => {
  it("narinfos", () => {
    tryMutations(
      NAR_INFOS.map((text) => Buffer.from(text)),
      150,
      (bytes) => {
        const narInfo = NarInfo.parse(bytes.toString());
        const found = `${narInfo}`;
        const { node } = decodePathInfo(base64(TREES[0]!.pathInfo_base64));
        // What is taken can be stored, and what is stored can be told.
        const stored = decodePathInfo(encodePathInfo(pathInfoFromNarInfo(narInfo, node)));
        expect(narInfoFromPathInfo(stored, narInfo).references).toEqual(narInfo.references);
        return { found, again: `${NarInfo.parse(found)}` };
      },
    );
  });

  it("narinfos that are cut off at every byte", () => {
    for (const text of NAR_INFOS.slice(0, 5)) {
      for (let length = 0; length < text.length; length++) {
        const cut = text.slice(0, length);
        // After a whole line, what is missing may be optional.
        if (cut.endsWith("\n") && /^NarSize: /m.test(cut)) continue;
        expect(() => NarInfo.parse(cut)).toThrow(
          expect.objectContaining({
            code: "invalid_argument",
            message: expect.stringContaining("Cannot parse narinfo: "),
          }),
        );
      }
    }
  });

  it("store paths", () => {
    const paths = NAR_INFOS.flatMap((text) => NarInfo.parse(text).references).slice(0, 60);
    tryMutations(
      paths.map((path) => Buffer.from(path.toAbsolutePath())),
      150,
      (bytes) => {
        const text = bytes.toString("latin1");
        return { found: text, again: StorePath.parseAbsolute(text).toAbsolutePath() };
      },
    );
  });

  it("content addresses", () => {
    const texts = NAR_INFOS.flatMap((text) => /^CA: (.*)$/m.exec(text)?.[1] ?? []);
    tryMutations(
      texts.map((text) => Buffer.from(text)),
      1000,
      (bytes) => {
        const text = bytes.toString("latin1");
        return { found: text, again: formatContentAddress(parseContentAddress(text)) };
      },
    );
  });

  it("secret keys, none of which a message shows", () => {
    const random = numbers(1);
    const secret = Buffer.from(SigningKey.generate("key").toSecretText());
    for (let round = 0; round < 2000; round++) {
      const text = mutate(secret, random).toString("latin1");
      if (text === secret.toString()) continue;
      try {
        SigningKey.parse(text);
      } catch (error) {
        if (!(error instanceof CastoreError)) throw error;
        expect(error.code).toBe("invalid_argument");
        expect(error.message).not.toMatch(/[a-zA-Z0-9+/]{12}/);
      }
    }
  });

  it("messages of PathInfos", () => {
    tryMutations(PATH_INFOS, 100, (bytes) => {
      const found = encodePathInfo(decodePathInfo(bytes));
      return { found, again: encodePathInfo(decodePathInfo(found)) };
    });
  });

  it("messages of directories", () => {
    tryMutations(DIRECTORIES, 150, (bytes) => {
      const found = encodeDirectory(decodeDirectory(bytes)).bytes;
      return { found, again: encodeDirectory(decodeDirectory(found)).bytes };
    });
  });
});
