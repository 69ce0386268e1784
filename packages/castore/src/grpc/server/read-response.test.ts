import { create, toBinary } from "@bufbuild/protobuf";
import { ReadBlobsResponse_BlobSchema, ReadBlobsResponseSchema } from "@tvix/proto/castore";
import { expect, it } from "vitest";
import { encodeReadResponse } from "./read-response.ts";

const LENGTHS = [0, 1, 127, 128, 16_383, 16_384, 70_000, 3, 2_000_000, 0, 5];

it.each([
  ["none", []],
  ["one", [70_000]],
  ["absent ones", [undefined, 100, undefined]],
  ["all lengths", LENGTHS],
  ["all lengths among absent ones", LENGTHS.flatMap((length) => [undefined, length])],
])("a response of %s is encoded as the library encodes it", async (_, lengths) => {
  const blobs = lengths.map((length, i) => {
    if (length === undefined) return undefined;
    const bytes = new Uint8Array(length).fill(i + 1);
    return i % 3 === 2 ? { frame: bytes } : { contents: bytes };
  });
  const { length, parts } = encodeReadResponse(blobs);
  const encoded = Buffer.concat(await Array.fromAsync(parts));
  const message = create(ReadBlobsResponseSchema, {
    blobs: blobs.map((blob) =>
      create(ReadBlobsResponse_BlobSchema, blob ? { present: true, ...blob } : {}),
    ),
  });
  expect(length).toBe(encoded.length);
  expect(encoded.equals(toBinary(ReadBlobsResponseSchema, message))).toBe(true);
});

it("long contents are not copied", async () => {
  const contents = new Uint8Array(100_000);
  const parts = await Array.fromAsync(encodeReadResponse([{ contents }]).parts);
  expect(parts).toContain(contents);
});
