import { toBinary } from "@bufbuild/protobuf";
import { DirectorySchema } from "@tvix/proto/castore";
import fc from "fast-check";
import { expect, it } from "vitest";
import { arbitraryEntries } from "../../test/arbitrary-directory.ts";
import { directoryToProto } from "./convert.ts";
import { Directory } from "./directory.ts";

it("encodes directories as the library for Protocol Buffers does", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const directory = Directory.from(entries);
      const expected = toBinary(DirectorySchema, directoryToProto(directory));
      expect(Buffer.from(directory.encodedEntries.bytes).equals(expected)).toBe(true);
    }),
    { seed: 1, numRuns: 500 },
  );
});

it("gives the same for entries that come sorted and for any other order", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const { encodedEntries: some, entries: sorted } = Directory.from(entries);
      const { encodedEntries: others } = Directory.from(sorted);
      expect(Buffer.from(others.bytes).equals(some.bytes)).toBe(true);
      expect(others.starts).toEqual(some.starts);
      expect(Directory.fromEncoding(some.bytes)!.encodedEntries.starts).toEqual(some.starts);
    }),
    { seed: 2, numRuns: 500 },
  );
});
