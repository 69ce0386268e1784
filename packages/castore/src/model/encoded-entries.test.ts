import { fromBinary } from "@bufbuild/protobuf";
import { DirectorySchema } from "@tvix/proto/castore";
import fc from "fast-check";
import { expect, it } from "vitest";
import { arbitraryEntries } from "../../test/arbitrary-directory.ts";
import { directoryFromProto } from "./convert.ts";
import { Directory } from "./directory.ts";
import { CastoreError } from "./errors.ts";

const viaLibrary = (bytes: Uint8Array) => directoryFromProto(fromBinary(DirectorySchema, bytes));

it("finds the entries that were encoded, by position and by name", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const expected = Directory.from(entries);
      const found = Directory.fromEncoding(expected.encodedEntries.bytes)!;
      expect([found.length, found.size]).toEqual([expected.length, expected.size]);
      for (const { name, node } of expected.entries) expect(found.get(name)).toEqual(node);
      const folders = expected.entries.filter(({ node }) => node.type === "directory");
      expect([...found.directories()]).toEqual(folders);
      expect(found.entries).toEqual(expected.entries);
      expect([...found.directories()]).toEqual(folders);
    }),
    { seed: 1, numRuns: 300 },
  );
});

it("takes nothing that the library refuses, and nothing that is encoded otherwise", () => {
  const change = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.boolean() });
  fc.assert(
    fc.property(arbitraryEntries, fc.array(change, { maxLength: 3 }), (entries, changes) => {
      let bytes = Uint8Array.from(Directory.from(entries.slice(0, 6)).encodedEntries.bytes);
      for (const { at, byte, cut } of changes) {
        if (bytes.length === 0) continue;
        bytes[at % bytes.length] = byte;
        if (cut) bytes = bytes.slice(0, at % bytes.length);
      }
      const found = Directory.fromEncoding(bytes);
      if (found === undefined) return;
      const expected = viaLibrary(bytes);
      expect(found.entries).toEqual(expected.entries);
      expect(Buffer.from(expected.encodedEntries.bytes).equals(bytes)).toBe(true);
    }),
    { seed: 2, numRuns: 1500 },
  );
});

const DIGEST = "1220".padEnd(68, "ab");

it.each([
  ["a name twice", `1225 0a0161 ${DIGEST} 1225 0a0161 ${DIGEST}`],
  ["a name in two lists", `0a25 0a0161 ${DIGEST} 1a06 0a0161 120174`],
  ["names in another order", `1225 0a0162 ${DIGEST} 1225 0a0161 ${DIGEST}`],
  ["a name with a slash", `1225 0a012f ${DIGEST}`],
  ["a short digest", "1206 0a0161 120174"],
  ["an unknown field", "2a00"],
  ["a length past the end", "12ff01 0a0161"],
])("leaves %s to whoever says what is wrong", (_, hex) => {
  const bytes = Buffer.from(hex.replaceAll(" ", ""), "hex");
  expect(Directory.fromEncoding(bytes)).toBeUndefined();
  expect(() => viaLibrary(bytes)).toThrow(hex.startsWith("12ff") ? Error : CastoreError);
});

it.each([
  ["lists in another order", `1a06 0a0161 120174 1225 0a0162 ${DIGEST}`],
  ["a default that is written", `1227 0a0161 ${DIGEST} 1800`],
  ["a number in more bytes", `1228 0a0161 ${DIGEST} 188100`],
  ["fields in another order", `1225 ${DIGEST} 0a0161`],
])("leaves %s to the library", (_, hex) => {
  const bytes = Buffer.from(hex.replaceAll(" ", ""), "hex");
  expect(Directory.fromEncoding(bytes)).toBeUndefined();
  expect(viaLibrary(bytes).entries.length).toBeGreaterThan(0);
});
