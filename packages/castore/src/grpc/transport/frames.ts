import {
  type DescField,
  type DescMessage,
  fromBinary,
  type MessageShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code } from "@connectrpc/connect";
import { RpcError } from "./rpc-error.ts";

/** Length of the prefix of a gRPC message in bytes: the flag for compression, and the length. */
const FRAME_HEADER_LENGTH = 5;

/** Messages up to this many bytes are copied behind their prefix, which costs less than sending two parts. */
const COPIED_BYTES = 64 * 1024;

/** Tag of field 1, bytes or a message. */
const DATA_TAG = 0x0a;

/** What stands before a message that is the field of another one: both headers. */
const MAX_PREFIX_LENGTH = FRAME_HEADER_LENGTH + 6;

/** Messages are gathered until they have as many bytes: with each write go costs of its own. */
const FRAMED_BYTES = 128 * 1024;

/** Encodes a message with its prefix. */
export function frameMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): Uint8Array {
  return frameBytes(toBinary(schema, message));
}

/** Returns a copy of an encoded message with its prefix. */
export function frameBytes(message: Uint8Array): Uint8Array {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_LENGTH + message.length);
  writeFrameHeader(frame, message.length);
  frame.set(message, FRAME_HEADER_LENGTH);
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
  return bytes.length > COPIED_BYTES ? [frameHeader(bytes.length), bytes] : [frameBytes(bytes)];
}

/** An encoded message as it stands in a stream of them. */
export interface MessageFraming {
  /** Whether each message is the field number 1, a message too, of the one that is sent. Default: it is sent itself. */
  isField?: boolean;
}

/**
 * Yields encoded messages with what stands before each, many in one piece of some 128 KiB. One that is `undefined` is
 * sent as an empty message.
 */
export function* frameEncoded(
  messages: Iterable<Uint8Array | undefined>,
  { isField = false }: MessageFraming = {},
): Generator<Uint8Array> {
  let batch: (Uint8Array | undefined)[] = [];
  let bytes = 0;
  for (const message of messages) {
    batch.push(message);
    bytes += MAX_PREFIX_LENGTH + (message?.length ?? 0);
    if (bytes < FRAMED_BYTES) continue;
    yield frameBatch(batch, bytes, isField);
    batch = [];
    bytes = 0;
  }
  if (batch.length > 0) yield frameBatch(batch, bytes, isField);
}

/** @param room how many bytes the framed messages have at most */
function frameBatch(
  messages: readonly (Uint8Array | undefined)[],
  room: number,
  isField: boolean,
): Uint8Array {
  const target = Buffer.allocUnsafeSlow(room);
  let at = 0;
  for (const message of messages) {
    const start = at;
    at += FRAME_HEADER_LENGTH;
    if (message !== undefined) {
      if (isField) {
        target[at++] = DATA_TAG;
        at = writeVarint(target, at, message.length);
      }
      target.set(message, at);
      at += message.length;
    }
    target[start] = 0;
    target.writeUInt32BE(at - start - FRAME_HEADER_LENGTH, start + 1);
  }
  return target.subarray(0, at);
}

/** The messages of what {@link frameEncoded} yields. */
export function* encodedIn(frames: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(frames.buffer, frames.byteOffset, frames.length);
  for (let at = 0; at < frames.length; ) {
    const start = at + FRAME_HEADER_LENGTH;
    at = start + view.getUint32(at + 1);
    yield frames.subarray(start, at);
  }
}

/**
 * The field number 1 of an encoded message, if it is nothing but that field, once, of bytes or a message; `undefined`
 * for any other message.
 */
export function onlyFieldOf(message: Uint8Array): Uint8Array | undefined {
  if (message[0] !== DATA_TAG) return undefined;
  let length = 0;
  for (let at = 1, shift = 0; shift < 28; shift += 7) {
    const byte = message[at++];
    if (byte === undefined) return undefined;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) return at + length === message.length ? message.subarray(at) : undefined;
  }
  return undefined;
}

/**
 * Returns the values of a field of bytes or messages of an encoded message, in order. A field that is not repeated may have
 * several as well, which together are the encoding of its value.
 *
 * @throws RpcError `internal` if the message is malformed
 */
export function bytesIn(message: Uint8Array, { number, parent }: DescField): Uint8Array[] {
  const found: Uint8Array[] = [];
  try {
    const reader = new BinaryReader(message);
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (field === number && type === WireType.LengthDelimited) found.push(reader.bytes());
      else reader.skip(type, field);
    }
  } catch (cause) {
    throw undecodable(parent, cause, Code.Internal);
  }
  return found;
}

/** Encodes a message that has a {@link dataField}, in parts as {@link messageParts} does. */
export function dataParts(data: Uint8Array): Uint8Array[] {
  return data.length > COPIED_BYTES ? [dataFrameHeader(data.length), data] : [frameData([data])];
}

/** A field of bytes or a message: its number, up to 15, and the encoding of its value. */
export type BytesField = readonly [number: number, value: Uint8Array];

/**
 * Encodes a message of nothing but fields of bytes and messages, with its prefix, in memory of its own. `toBinary` would
 * gather each byte string in an array first, and copy megabytes three times.
 */
export function frameFields(fields: readonly BytesField[]): Uint8Array {
  return encodeFields(fields, FRAME_HEADER_LENGTH);
}

/** Encodes a message of nothing but fields of bytes and messages. */
export function encodeFields(fields: readonly BytesField[], prefixLength = 0): Uint8Array {
  const length = fields.reduce((sum, [, { length }]) => sum + fieldLength(length), 0);
  const target = Buffer.allocUnsafeSlow(prefixLength + length);
  if (prefixLength > 0) writeFrameHeader(target, length);
  let at = prefixLength;
  for (const [number, value] of fields) {
    target[at++] = (number << 3) | WireType.LengthDelimited;
    at = writeVarint(target, at, value.length);
    target.set(value, at);
    at += value.length;
  }
  return target;
}

/** Length of a field of bytes with tag and length. */
function fieldLength(length: number): number {
  let varint = 1;
  for (let rest = length; rest >= 0x80; rest >>>= 7) varint += 1;
  return 1 + varint + length;
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
    at = writeVarint(bytes, at, dataLength);
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
 * @throws RpcError `invalid_argument` if the bytes are malformed
 */
export function parseMessage<Desc extends DescMessage>(
  schema: Desc,
  bytes: Uint8Array,
): MessageShape<Desc> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw undecodable(schema, cause, Code.InvalidArgument);
  }
}

/** Creates the error for bytes that are no message of a type. */
export function undecodable({ typeName }: DescMessage, cause: unknown, code: Code): RpcError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new RpcError(code, `cannot decode ${typeName}: ${reason}`, { cause });
}

/** Gives the position after it. */
function writeVarint(target: Uint8Array, start: number, value: number): number {
  let at = start;
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) target[at++] = (rest & 0x7f) | 0x80;
  target[at++] = rest;
  return at;
}

function writeFrameHeader(target: Buffer, length: number): void {
  target[0] = 0;
  target.writeUInt32BE(length, 1);
}
