import { create, toBinary } from "@bufbuild/protobuf";
import { DirectorySchema } from "@tvix/proto/castore";
import fc from "fast-check";
import { expect, it } from "vitest";
import { arbitraryEntries } from "../../test/arbitrary-directory.ts";
import { nodeToProto } from "./convert.ts";
import { Directory } from "./directory.ts";

it("encodes directories as the library for Protocol Buffers does", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const directory = Directory.from(entries);
      const message = create(DirectorySchema);
      for (const { name, node } of directory.entries) {
        const { node: wire } = nodeToProto(name, node);
        if (wire.case === "directory") message.directories.push(wire.value);
        if (wire.case === "file") message.files.push(wire.value);
        if (wire.case === "symlink") message.symlinks.push(wire.value);
      }
      const expected = toBinary(DirectorySchema, message);
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
