import { toBinary } from "@bufbuild/protobuf";
import { DirectorySchema } from "@tvix/proto/castore";
import fc from "fast-check";
import { expect, it } from "vitest";
import { arbitraryEntries } from "../../test/arbitrary-directory.ts";
import { directoryToProto } from "./convert.ts";
import { Directory } from "./directory.ts";
import { encodeDirectoryMessage } from "./encode-directory.ts";

it("encodes directories as the library for Protocol Buffers does", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const directory = Directory.from(entries);
      const expected = toBinary(DirectorySchema, directoryToProto(directory));
      expect(Buffer.from(encodeDirectoryMessage(directory)).equals(expected)).toBe(true);
    }),
    { seed: 1, numRuns: 500 },
  );
});
