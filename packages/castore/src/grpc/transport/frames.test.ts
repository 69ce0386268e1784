import { create, toBinary } from "@bufbuild/protobuf";
import { PutFramesRequestSchema } from "@tvix/proto/castore";
import { expect, it } from "vitest";
import { type BytesField, bytesIn, encodeFields, frameFields, frameMessage } from "./frames.ts";

it("encodes fields of bytes as the generated code does, at lengths around those of varints", () => {
  const lengths = [1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1fffff, 0x200000];
  const values = lengths.map((length, i) => new Uint8Array(length).fill(i + 1));
  const digest = new Uint8Array(32).fill(9);
  const blobs = values.map((chunks) => ({ digest, chunks }));
  const message = create(PutFramesRequestSchema, { chunks: digest, frames: values, blobs });
  const fields: BytesField[] = [
    [1, digest],
    ...values.map((value): BytesField => [2, value]),
    ...values.map(
      (chunks): BytesField => [
        3,
        encodeFields([
          [1, digest],
          [2, chunks],
        ]),
      ],
    ),
  ];
  expect(Buffer.compare(frameFields(fields), frameMessage(PutFramesRequestSchema, message))).toBe(
    0,
  );
});

it("encodes a message without fields", () => {
  expect(frameFields([])).toEqual(Buffer.alloc(5));
});

it("finds the values of a field among others, in order", () => {
  const frames = [Uint8Array.of(1, 2), Uint8Array.of(), Uint8Array.of(3)];
  const chunks = new Uint8Array(32).fill(9);
  const message = toBinary(
    PutFramesRequestSchema,
    create(PutFramesRequestSchema, { chunks, frames }),
  );
  const unknown = Uint8Array.of(0x98, 0x06, 5); // field 99, a number
  const { field } = PutFramesRequestSchema;
  expect(bytesIn(Buffer.concat([unknown, message]), field.frames)).toEqual(frames);
  expect(bytesIn(message, field.blobs)).toEqual([]);
  expect(() => bytesIn(message.subarray(0, -1), field.chunks)).toThrow(
    /cannot decode .*PutFramesRequest/,
  );
});
