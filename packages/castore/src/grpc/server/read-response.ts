import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ReadBlobsResponse_BlobSchema, ReadBlobsResponseSchema } from "@tvix/proto/castore";
import type { EncodedMessage } from "../transport/direct-methods.ts";

const BLOBS = ReadBlobsResponseSchema.field.blobs.number;
const { present: PRESENT, contents: CONTENTS } = ReadBlobsResponse_BlobSchema.field;

/** Contents of at least so many bytes are a part of their own; shorter ones are copied into one with others. */
const OWN_PART = 16 * 1024;

/**
 * Encodes a ReadBlobsResponse in parts, so that contents are not copied.
 *
 * @param blobs the contents of each blob, which nobody changes from then on; `undefined` for one that is absent
 */
export function encodeReadResponse(blobs: readonly (Uint8Array | undefined)[]): EncodedMessage {
  const parts: Uint8Array[] = [];
  let writer = new BinaryWriter();
  let length = 0;
  const endPart = (part: Uint8Array) => {
    if (part.length > 0) parts.push(part);
    length += part.length;
  };
  for (const contents of blobs) {
    const fields = new BinaryWriter();
    const size = contents?.length ?? 0;
    if (contents !== undefined) fields.tag(PRESENT.number, WireType.Varint).bool(true);
    if (size > 0) fields.tag(CONTENTS.number, WireType.LengthDelimited).uint32(size);
    const head = fields.finish();
    writer
      .tag(BLOBS, WireType.LengthDelimited)
      .uint32(head.length + size)
      .raw(head);
    if (contents === undefined || size === 0) continue;
    if (size < OWN_PART) {
      writer.raw(contents);
      continue;
    }
    endPart(writer.finish());
    writer = new BinaryWriter();
    endPart(contents);
  }
  endPart(writer.finish());
  return { length, parts: eachOf(parts) };
}

async function* eachOf(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}
