import {
  type DescMessage,
  fromBinary,
  type MessageShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

/** Length of the prefix of a gRPC message in bytes: the flag for compression, and the length. */
const FRAME_HEADER_LENGTH = 5;

/** Messages up to this many bytes are copied behind their prefix, which costs less than sending two parts. */
const COPIED_BYTES = 64 * 1024;

/** Tag of field 1, bytes. */
const DATA_TAG = 0x0a;

/** Encodes a message with its prefix. */
export function frameMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array {
  const bytes = toBinary(schema, message);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + bytes.length);
  writeFrameHeader(frame, bytes.length);
  frame.set(bytes, FRAME_HEADER_LENGTH);
  return frame;
}

/** Returns the prefix of a message. */
export function frameHeader(messageLength: number): Uint8Array {
  const header = Buffer.allocUnsafe(FRAME_HEADER_LENGTH);
  writeFrameHeader(header, messageLength);
  return header;
}

/** Encodes a message with its prefix, in parts, so that a long message is not copied again. */
export function messageParts<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array[] {
  const bytes = toBinary(schema, message);
  const header = frameHeader(bytes.length);
  return bytes.length > COPIED_BYTES ? [header, bytes] : [Buffer.concat([header, bytes])];
}

/** Encodes a message that has a {@link dataField}, in parts as {@link messageParts} does. */
export function dataParts(data: Uint8Array): Uint8Array[] {
  return data.length > COPIED_BYTES ? [dataFrameHeader(data.length), data] : [frameData([data])];
}

/** Encodes a message that has a {@link dataField} with its prefix, from a copy of the data. */
export function frameData(parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const header = dataFrameHeader(length);
  const frame = Buffer.allocUnsafeSlow(header.length + length);
  frame.set(header);
  let at = header.length;
  for (const part of parts) {
    frame.set(part, at);
    at += part.length;
  }
  return frame;
}

/** Returns the bytes before the data of a message that has a {@link dataField}. The data can be sent without a copy. */
export function dataFrameHeader(dataLength: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + 6);
  let at = FRAME_HEADER_LENGTH;
  if (dataLength > 0) {
    bytes[at++] = DATA_TAG;
    let rest = dataLength;
    for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
    bytes[at++] = rest;
  }
  writeFrameHeader(bytes, at - FRAME_HEADER_LENGTH + dataLength);
  return bytes.subarray(0, at);
}

/**
 * Returns the name of the only field of a message type, if that field is `bytes` with number 1. A stream of such
 * messages is read as a stream of bytes; the borders between messages carry no meaning.
 */
export function dataField({ fields }: DescMessage): string | undefined {
  const [field] = fields;
  const isData = field?.number === 1 && field.fieldKind === "scalar";
  if (fields.length > 1 || !isData || field.scalar !== ScalarType.BYTES) return undefined;
  return field.localName;
}

/** Returns the data of an encoded message that has a {@link dataField}, and ignores unknown fields. */
export function dataIn(schema: DescMessage, message: Uint8Array): Uint8Array {
  const parsed = parseMessage(schema, message) as unknown as Record<string, Uint8Array>;
  return parsed[dataField(schema)!]!;
}

/**
 * Decodes a message.
 *
 * @throws ConnectError `invalid_argument` if the bytes are malformed
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

function writeFrameHeader(target: Buffer, length: number): void {
  target[0] = 0;
  target.writeUInt32BE(length, 1);
}
