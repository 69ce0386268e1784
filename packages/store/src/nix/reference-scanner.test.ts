import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { decodeNixbase32, encodeNixbase32 } from "./nixbase32.ts";
import { ReferenceCandidates } from "./reference-scanner.ts";

/** Hash parts that are always the same. */
function hashParts(count: number, seed = ""): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => createHash("sha1").update(`${seed}${i}`).digest());
}

const text = (hashPart: Uint8Array) => encodeNixbase32(hashPart);

/** What is found in contents that come in pieces of that length. */
function scan(
  candidates: ReferenceCandidates,
  contents: Uint8Array,
  pieceLength: number,
): string[] {
  const opened = candidates.openScan();
  for (let at = 0; at < contents.length; at += pieceLength) {
    opened.update(contents.subarray(at, at + pieceLength));
  }
  return opened.found().map(text);
}

/** What is found by looking at every place. */
function scanPlainly(parts: readonly Uint8Array[], contents: Uint8Array): string[] {
  return parts
    .map(text)
    .filter((word) => Buffer.from(contents).includes(word))
    .toSorted();
}

const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

describe("a scan for references", () => {
  const [a, b, c] = hashParts(3) as [Uint8Array, Uint8Array, Uint8Array];
  const candidates = new ReferenceCandidates([a, b, c]);

  it.each([
    ["alone", text(a)],
    ["in a path", `see /nix/store/${text(a)}-name/bin.`],
    ["without a name", `x${text(a)}y`],
    ["among its own characters", `0123${text(a)}abcd`],
    ["twice", `${text(a)} ${text(a)}`],
    ["after most of itself", `${text(a).slice(0, 31)}${text(a)}`],
    ["after most of itself and an excluded character", `${text(a).slice(0, 31)}e${text(a)}`],
  ])("finds a store path %s, however it is cut", (_, contents) => {
    for (let length = 1; length <= contents.length; length++) {
      expect(scan(candidates, Buffer.from(contents), length)).toEqual([text(a)]);
    }
  });

  it.each([
    ["nothing", ""],
    ["other contents", "x".repeat(1000)],
    ["all but the first character", text(a).slice(1).repeat(3)],
    ["all but the last character", `${text(a).slice(0, -1)}.`.repeat(3)],
    ["another character in it", `${text(a).slice(0, 15)}e${text(a).slice(16)}`],
    ["upper case", text(a).toUpperCase()],
    ["its bytes", Buffer.from(a).toString("latin1")],
    ["another store path", text(hashParts(1, "other")[0]!)],
  ])("finds none in %s", (_, contents) => {
    for (let length = 1; length <= contents.length; length++) {
      expect(scan(candidates, Buffer.from(contents, "latin1"), length)).toEqual([]);
    }
  });

  it("gives what was found in the order of the text, once each", () => {
    const words = [text(a), text(b), text(c)];
    const contents = Buffer.from([...words, ...words.toReversed()].join("-"));
    expect(scan(candidates, contents, 7)).toEqual(words.toSorted());
  });

  it("finds what stands at any place of buffers of any length", () => {
    const filling = Buffer.alloc(200_000, "no store path / ");
    for (const at of [0, 1, 65_504, 65_505, 65_520, 65_535, 65_536, 131_055, 199_968]) {
      const contents = Buffer.from(filling);
      contents.write(text(b), at);
      for (const length of [200_000, 65_536, 65_537, 4096, 33]) {
        expect(scan(candidates, contents, length)).toEqual([text(b)]);
      }
    }
  });

  it("finds what looking at every place finds", () => {
    const parts = hashParts(300, "many");
    const many = new ReferenceCandidates(parts);
    let state = 7;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % below;
    };
    for (let round = 0; round < 60; round++) {
      // Runs of the alphabet, whole and broken store paths, and other bytes.
      const pieces = Array.from({ length: 200 }, () => {
        const word = text(parts[random(300)]!);
        const kind = random(round % 2 === 0 ? 4 : 40);
        if (kind === 0) return word;
        if (kind === 1) return word.slice(random(32));
        if (kind === 2) return word.slice(0, random(32));
        if (kind === 3) return String.fromCharCode(random(256));
        return Array.from({ length: random(80) }, () => ALPHABET[random(32)]).join("");
      });
      const contents = Buffer.from(pieces.join(""), "latin1");
      const expected = scanPlainly(parts, contents);
      expect(expected.length).toBeGreaterThan(0);
      expect(scan(many, contents, 1 + random(300))).toEqual(expected);
    }
  });

  it("keeps scans apart that run at the same time", () => {
    const [first, second] = [candidates.openScan(), candidates.openScan()];
    for (let at = 0; at < 32; at++) {
      first.update(Buffer.from(text(a)[at]!));
      second.update(Buffer.from(text(b)[at]!));
    }
    second.update(Buffer.from(text(a)));
    expect(first.found().map(text)).toEqual([text(a)]);
    expect(second.found().map(text)).toEqual([text(a), text(b)].toSorted());
  });

  it("is for any number of store paths, also ones that are added later", () => {
    const parts = hashParts(20_000, "set");
    const set = new ReferenceCandidates();
    expect(scan(set, Buffer.from(text(parts[0]!)), 32)).toEqual([]);
    for (const part of [...parts, ...parts]) set.add(part);
    expect(set.size).toBe(20_000);
    const contents = Buffer.from(parts.map(text).join("/"));
    expect(scan(set, contents, 65_536)).toEqual(parts.map(text).toSorted());
    const absent = Buffer.from(hashParts(20_000, "absent").map(text).join("/"));
    expect(scan(set, absent, 65_536)).toEqual([]);
  });

  it("keeps store paths apart that begin and end alike", () => {
    const words = Array.from(ALPHABET, (letter) => `${"0".repeat(16)}${letter}${"0".repeat(15)}`);
    const alike = new ReferenceCandidates(words.slice(1).map(decodeNixbase32));
    for (const word of words.slice(1)) expect(scan(alike, Buffer.from(word), 32)).toEqual([word]);
    expect(scan(alike, Buffer.from(words[0]!), 32)).toEqual([]);
  });

  it("refuses a hash part of another length", () => {
    expect(() => candidates.add(new Uint8Array(32))).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});
