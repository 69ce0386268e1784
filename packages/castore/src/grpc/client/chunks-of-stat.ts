import { setImmediate as yieldToEvents } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code } from "@connectrpc/connect";
import { StatBlobResponse_ChunkMetaSchema, StatBlobResponseSchema } from "@tvix/proto/castore";
import { type ChunkList, ChunkListBuilder } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { undecodable } from "../transport/frames.ts";
import { received } from "../transport/received.ts";

/** Number of chunks that are decoded before other events have their turn. */
export const CHUNKS_PER_TURN = 1024;

/** Length of the shortest encoding of a chunk in bytes: three tags, two lengths, the digest and a size. */
const MIN_CHUNK_BYTES = B3Digest.LENGTH + 6;

const CHUNKS_FIELD = StatBlobResponseSchema.field.chunks.number;

/**
 * Decodes the chunks of an encoded `StatBlobResponse` in steps: it can list hundreds of thousands.
 *
 * @param action the operation and the server, for error messages
 * @throws RpcError `internal` for a malformed message, CastoreError `data_loss` for an invalid digest or a chunk
 *   that has not 1 to 8 MiB
 */
export async function decodeChunks(
  message: Uint8Array,
  action: string,
  options?: AbortOptions,
): Promise<ChunkList> {
  const reader = new BinaryReader(message);
  // At once, as it would take long to grow: no list has more chunks than the message has room for.
  const builder = new ChunkListBuilder(Math.ceil(message.length / MIN_CHUNK_BYTES));
  for (;;) {
    received(action, () => decodeSome(reader, builder));
    if (reader.pos >= reader.len) return builder.finish();
    await yieldToEvents();
    options?.signal?.throwIfAborted();
  }
}

/** Decodes the next fields of a message, up to the number for one turn. */
function decodeSome(reader: BinaryReader, builder: ChunkListBuilder): void {
  try {
    for (let fields = 0; reader.pos < reader.len && fields < CHUNKS_PER_TURN; fields++) {
      const [number, type] = reader.tag();
      if (number !== CHUNKS_FIELD || type !== WireType.LengthDelimited) {
        reader.skip(type, number);
        continue;
      }
      const chunk = fromBinary(StatBlobResponse_ChunkMetaSchema, reader.bytes());
      builder.push(B3Digest.fromBytes(chunk.digest), Number(chunk.size));
    }
  } catch (cause) {
    if (cause instanceof CastoreError) throw cause;
    throw undecodable(StatBlobResponseSchema, cause, Code.Internal);
  }
}
