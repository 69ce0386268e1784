import { setImmediate as yieldToEvents } from "node:timers/promises";
import { create, type DescField } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import {
  type StatBlobResponse_ChunkMeta,
  StatBlobResponse_ChunkMetaSchema,
  StatBlobResponseSchema,
} from "@tvix/proto/castore";
import type { ChunkList } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { B3Digest } from "../../model/digest.ts";
import type { EncodedMessage } from "../transport/direct-methods.ts";

/** Number of chunks that are encoded before other events have their turn. */
export const CHUNKS_PER_TURN = 4096;

const { chunks: CHUNKS, bao: BAO } = StatBlobResponseSchema.field;
const { digest: DIGEST, size: SIZE } = StatBlobResponse_ChunkMetaSchema.field;
const CHUNKS_TAG = tag(CHUNKS, WireType.LengthDelimited);
const BAO_TAG = tag(BAO, WireType.LengthDelimited);
const DIGEST_TAG = tag(DIGEST, WireType.LengthDelimited);
const SIZE_TAG = tag(SIZE, WireType.Varint);

/** Bytes of an entry beside the varint of its size: tag and length of the entry, tag and length of the digest. */
const FIXED_BYTES = 4 + B3Digest.LENGTH + 1;

/** Longest encoding of a varint of 32 bits, in bytes. */
const MAX_VARINT_BYTES = 5;

/**
 * Encodes a `StatBlobResponse` as the library does, but in steps: a list can have hundreds of thousands of chunks.
 *
 * @param bao bytes of the outboard; none if it is not sent
 */
export async function encodeStatResponse(
  chunks: ChunkList,
  bao: Uint8Array,
  options?: AbortOptions,
): Promise<EncodedMessage> {
  let length = bao.length > 0 ? 1 + varintLength(bao.length) + bao.length : 0;
  for await (const [start, end] of turns(chunks, options)) {
    length += (end - start) * FIXED_BYTES;
    for (let i = start; i < end; i++) length += varintLength(chunks.sizeAt(i));
  }
  return { length, parts: parts(chunks, bao, options) };
}

/** Makes the messages of chunks, in steps. */
export async function chunkMessages(
  chunks: ChunkList,
  options?: AbortOptions,
): Promise<StatBlobResponse_ChunkMeta[]> {
  const messages: StatBlobResponse_ChunkMeta[] = [];
  for await (const [start, end] of turns(chunks, options)) {
    for (let i = start; i < end; i++) {
      const { digest, size } = chunks.at(i);
      messages.push(
        create(StatBlobResponse_ChunkMetaSchema, { digest: digest.bytes, size: BigInt(size) }),
      );
    }
  }
  return messages;
}

async function* parts(
  chunks: ChunkList,
  bao: Uint8Array,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  for await (const [start, end] of turns(chunks, options)) yield encodeChunks(chunks, start, end);
  if (bao.length === 0) return;
  const header = new Uint8Array(1 + MAX_VARINT_BYTES);
  header[0] = BAO_TAG;
  yield header.subarray(0, writeVarint(header, 1, bao.length));
  yield bao;
}

function encodeChunks(chunks: ChunkList, start: number, end: number): Uint8Array {
  const bytes = new Uint8Array((end - start) * (FIXED_BYTES + MAX_VARINT_BYTES));
  let at = 0;
  for (let i = start; i < end; i++) {
    const size = chunks.sizeAt(i);
    bytes[at++] = CHUNKS_TAG;
    bytes[at++] = FIXED_BYTES - 2 + varintLength(size);
    bytes[at++] = DIGEST_TAG;
    bytes[at++] = B3Digest.LENGTH;
    bytes.set(chunks.digestAt(i).bytes, at);
    at += B3Digest.LENGTH;
    bytes[at++] = SIZE_TAG;
    at = writeVarint(bytes, at, size);
  }
  return bytes.subarray(0, at);
}

/** Divides a list into ranges of chunks, with a turn for other events between them. */
async function* turns(
  { length }: ChunkList,
  options?: AbortOptions,
): AsyncGenerator<readonly [start: number, end: number]> {
  for (let start = 0; start < length; start += CHUNKS_PER_TURN) {
    if (start > 0) await yieldToEvents();
    options?.signal?.throwIfAborted();
    yield [start, Math.min(start + CHUNKS_PER_TURN, length)];
  }
}

/** Returns the tag of a field, one byte for numbers up to 15. */
function tag({ number }: DescField, type: WireType): number {
  return (number << 3) | type;
}

function varintLength(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest >>>= 7) length += 1;
  return length;
}

/** Writes an unsigned number of 32 bits, and returns the position after it. */
function writeVarint(target: Uint8Array, start: number, value: number): number {
  let at = start;
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) target[at++] = (rest & 0x7f) | 0x80;
  target[at++] = rest;
  return at;
}
