import {
  type DescMessage,
  fromBinary,
  type MessageShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

/** A message in gRPC has this many bytes before it: whether it is compressed, and its length. */
const FRAME_HEADER_LENGTH = 5;

/** Up to this many bytes are copied, which costs less than to send them in two parts. */
const COPIED_BYTES = 64 * 1024;

/** Tag of field 1, bytes. */
const DATA_TAG = 0x0a;

/** A message with what stands before it. */
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

/** A message with what stands before it, in parts: a long one is not copied once more. */
export function messageParts<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array[] {
  const bytes = toBinary(schema, message);
  const header = Buffer.allocUnsafe(FRAME_HEADER_LENGTH);
  writeFrameHeader(header, bytes.length);
  return bytes.length > COPIED_BYTES ? [header, bytes] : [Buffer.concat([header, bytes])];
}

/** A message that has a {@link dataField}, in parts, as {@link messageParts} gives it. */
export function dataParts(data: Uint8Array): Uint8Array[] {
  return data.length > COPIED_BYTES ? [dataFrameHeader(data.length), data] : [frameData([data])];
}

/** A message that has a {@link dataField}, with what stands before it, of a copy of its data. */
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

/** What stands before the data of a message that has a {@link dataField}, so that the data need not be copied. */
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
 * The name of the only field of a kind of messages, if it is `bytes` with number 1. A stream of such
 * messages is taken for a stream of bytes, whose message borders carry no meaning.
 */
export function dataField({ fields }: DescMessage): string | undefined {
  const [field] = fields;
  const isData = field?.number === 1 && field.fieldKind === "scalar";
  if (fields.length > 1 || !isData || field.scalar !== ScalarType.BYTES) return undefined;
  return field.localName;
}

/** The data of an encoded message that has a {@link dataField}, whatever else is in it. */
export function dataIn(schema: DescMessage, message: Uint8Array): Uint8Array {
  const parsed = parseMessage(schema, message) as unknown as Record<string, Uint8Array>;
  return parsed[dataField(schema)!]!;
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

function writeFrameHeader(target: Buffer, length: number): void {
  target[0] = 0;
  target.writeUInt32BE(length, 1);
}
