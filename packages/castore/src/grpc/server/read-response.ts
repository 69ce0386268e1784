import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ReadBlobsResponse_BlobSchema, ReadBlobsResponseSchema } from "@tvix/proto/castore";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import type { EncodedMessage } from "../transport/direct-methods.ts";

const BLOBS = ReadBlobsResponseSchema.field.blobs.number;
const { present: PRESENT, contents: CONTENTS, frame: FRAME } = ReadBlobsResponse_BlobSchema.field;
const NO_BYTES = new Uint8Array(0);

/** Contents of at least so many bytes are a part of their own; shorter ones are copied into one with others. */
const OWN_PART = 16 * 1024;

/**
 * Encodes a ReadBlobsResponse in parts, so that contents and frames are not copied.
 *
 * @param blobs each blob, which nobody changes from then on, and whose memory nobody else uses; `undefined` for one that is absent
 */
export function encodeReadResponse(blobs: readonly (StoredBlob | undefined)[]): EncodedMessage {
  const parts: Uint8Array[] = [];
  let writer = new BinaryWriter();
  let length = 0;
  const endPart = (part: Uint8Array) => {
    if (part.length > 0) parts.push(part);
    length += part.length;
  };
  for (const blob of blobs) {
    const fields = new BinaryWriter();
    if (blob !== undefined) fields.tag(PRESENT.number, WireType.Varint).bool(true);
    const [field, bytes] = fieldOf(blob);
    const size = bytes.length;
    if (size > 0) fields.tag(field.number, WireType.LengthDelimited).uint32(size);
    const head = fields.finish();
    writer
      .tag(BLOBS, WireType.LengthDelimited)
      .uint32(head.length + size)
      .raw(head);
    if (size === 0) continue;
    if (size < OWN_PART) {
      writer.raw(bytes);
      continue;
    }
    endPart(writer.finish());
    writer = new BinaryWriter();
    endPart(bytes);
  }
  endPart(writer.finish());
  const memory = new Set(
    blobs.map((blob) => blob?.memory).filter((memory) => memory !== undefined),
  );
  return { length, parts: eachOf(parts), memory: [...memory] };
}

function fieldOf(blob: StoredBlob | undefined): [field: { number: number }, bytes: Uint8Array] {
  if (blob !== undefined && "frame" in blob) return [FRAME, blob.frame];
  return [CONTENTS, blob?.contents ?? NO_BYTES];
}

async function* eachOf(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}
