import {
  type DescMessage,
  fromBinary,
  isMessage,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { BlobChunkSchema } from "@tvix/proto/castore";

/** A message in gRPC has this many bytes before it: whether it is compressed, and its length. */
const FRAME_HEADER_LENGTH = 5;

/** Writes what stands before a message of `length` bytes, from a position on. */
function writeFrameHeader(target: Buffer, at: number, length: number): void {
  target[at] = 0;
  target.writeUInt32BE(length, at + 1);
}

/**
 * Takes the messages out of the body of a gRPC request or response that is not compressed. A message may
 * be a part of one of the chunks.
 *
 * @param maxBytes longest message that is taken
 * @throws ConnectError `resource_exhausted` for a longer message, `internal` for a compressed one,
 *   `invalid_argument` where the body ends within one
 */
export async function* readMessages(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  const header = Buffer.alloc(FRAME_HEADER_LENGTH);
  let headerFilled = 0;
  let message: Uint8Array | undefined;
  let filled = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      if (headerFilled < FRAME_HEADER_LENGTH) {
        const count = Math.min(FRAME_HEADER_LENGTH - headerFilled, chunk.length - at);
        header.set(chunk.subarray(at, at + count), headerFilled);
        headerFilled += count;
        at += count;
        if (headerFilled < FRAME_HEADER_LENGTH) break;
        const length = messageLength(header, maxBytes);
        if (length > 0 && chunk.length - at < length) {
          message = Buffer.allocUnsafeSlow(length);
          filled = 0;
          continue;
        }
        headerFilled = 0;
        yield chunk.subarray(at, at + length);
        at += length;
      } else if (message !== undefined) {
        const part = chunk.subarray(at, at + message.length - filled);
        message.set(part, filled);
        filled += part.length;
        at += part.length;
        if (filled < message.length) break;
        yield message;
        message = undefined;
        headerFilled = 0;
      }
    }
  }
  if (headerFilled > 0) {
    throw new ConnectError("the stream ended within a message", Code.InvalidArgument);
  }
}

function messageLength(header: Buffer, maxBytes: number): number {
  if (header[0] !== 0) {
    throw new ConnectError(
      "received a compressed message, though no compression was announced",
      Code.Internal,
    );
  }
  const length = header.readUInt32BE(1);
  if (length <= maxBytes) return length;
  throw new ConnectError(
    `message of ${length} bytes is larger than the limit of ${maxBytes}`,
    Code.ResourceExhausted,
  );
}

/** A message with what stands before it. */
export function frameMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): readonly Uint8Array[] {
  if (isMessage(message, BlobChunkSchema)) {
    return [blobChunkHeader(message.data.length), message.data];
  }
  const bytes = toBinary(schema, message);
  const header = Buffer.allocUnsafe(FRAME_HEADER_LENGTH);
  writeFrameHeader(header, 0, bytes.length);
  return [header, bytes];
}

/**
 * Decodes a message.
 *
 * @throws ConnectError `invalid_argument` for what is no such message
 */
export function parseMessage<Desc extends DescMessage>(
  schema: Desc,
  bytes: Uint8Array,
): MessageShape<Desc> {
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    const { message } = error as Error;
    throw new ConnectError(
      `cannot decode ${schema.typeName}: ${message}`,
      Code.InvalidArgument,
      undefined,
      undefined,
      error,
    );
  }
}

/** Tag of field 1, bytes: the only one that a `BlobChunk` has. */
const DATA_TAG = 0x0a;

/** Everything before the data of a framed `BlobChunk`, so that the data need not be copied. */
function blobChunkHeader(dataLength: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + 6);
  let at = FRAME_HEADER_LENGTH;
  if (dataLength > 0) {
    bytes[at++] = DATA_TAG;
    let rest = dataLength;
    for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
    bytes[at++] = rest;
  }
  writeFrameHeader(bytes, 0, at - FRAME_HEADER_LENGTH + dataLength);
  return bytes.subarray(0, at);
}
