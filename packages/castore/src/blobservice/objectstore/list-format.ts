import { setImmediate as yieldToEvents } from "node:timers/promises";
import { asBuffer } from "../../bytes/byte-string.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { ChunkList, ChunkListBuilder } from "../chunk-list.ts";

/*
 * The encoding of `StatBlobResponse`, without an object for each chunk: a list may have millions. Field 2 is a chunk, a
 * message of its own with the digest in field 1 and the length in field 2.
 */

/** The tags of fields: the number, and the wire type in the lower three bits. */
const CHUNK = (2 << 3) | 2;
const DIGEST = (1 << 3) | 2;
const SIZE = 2 << 3;

/** Length of an encoded chunk up to its size, and with the longest size that a chunk has. */
const FIXED_BYTES = 2 + 2 + B3Digest.LENGTH + 1;
const MAX_ENTRY_BYTES = FIXED_BYTES + 4;

/** How many chunks are encoded, or taken in, at a time: about a millisecond. */
const STEP = 4096;

/** The longest message of a chunk that is taken: with fields that nobody knows yet. */
const MAX_CHUNK_MESSAGE = 4096;

/** Encodes a list in pieces that belong to the reader, and lets other events have their turn in between. */
export async function* encodeList({ bytes, length }: ChunkList): AsyncGenerator<Uint8Array> {
  const source = asBuffer(bytes);
  for (let first = 0; first < length; first += STEP) {
    if (first > 0) await yieldToEvents();
    const end = Math.min(first + STEP, length);
    const out = Buffer.allocUnsafeSlow((end - first) * MAX_ENTRY_BYTES);
    let at = 0;
    for (let i = first; i < end; i++) {
      const from = i * ChunkList.ENTRY_BYTES;
      const start = at;
      out[at] = CHUNK;
      out[at + 2] = DIGEST;
      out[at + 3] = B3Digest.LENGTH;
      source.copy(out, at + 4, from, from + B3Digest.LENGTH);
      out[at + FIXED_BYTES - 1] = SIZE;
      at += FIXED_BYTES;
      let size = source.readUInt32LE(from + B3Digest.LENGTH);
      for (; size > 0x7f; size >>>= 7) out[at++] = size | 0x80;
      out[at++] = size;
      out[start + 1] = at - start - 2;
    }
    yield out.subarray(0, at);
  }
}

/** Decodes a list that comes in pieces. Holds the packed list, and no more than one field besides. */
export class ListDecoder {
  readonly #list = new ChunkListBuilder();
  readonly #packed = Buffer.alloc(STEP * ChunkList.ENTRY_BYTES);
  #filled = 0;
  /** What came of a field that is not complete. */
  #rest: Buffer = Buffer.alloc(0);
  /** How many bytes follow of a field that is passed over. */
  #skip = 0;

  /** @throws CastoreError `data_loss` for what is no list */
  add(data: Uint8Array): void {
    const skipped = Math.min(this.#skip, data.length);
    this.#skip -= skipped;
    const rest = data.subarray(skipped);
    const all = this.#rest.length > 0 ? Buffer.concat([this.#rest, rest]) : asBuffer(rest);
    let at = 0;
    for (let end = this.#field(all, at); end !== undefined; end = this.#field(all, at)) at = end;
    this.#rest = Buffer.from(all.subarray(at));
  }

  /** Returns the list. @throws CastoreError `data_loss` if it breaks off, or has a chunk of an impossible length */
  finish(): ChunkList {
    if (this.#rest.length > 0 || this.#skip > 0) throw notAList("it breaks off");
    this.#flush();
    return this.#list.finish();
  }

  /** Takes the field at a position, and returns where the next one begins: `undefined` if it is not complete. */
  #field(data: Buffer, start: number): number | undefined {
    const field = readField(data, start, data.length);
    if (field === undefined) return undefined;
    const { tag, at, end } = field;
    if (tag === CHUNK) {
      if (end - at > MAX_CHUNK_MESSAGE) throw notAList(`a chunk takes ${end - at} bytes`);
      if (end > data.length) return undefined;
      this.#chunk(data, at, end);
      return end;
    }
    if (end <= data.length) return end;
    this.#skip = end - data.length;
    return data.length;
  }

  #chunk(data: Buffer, start: number, end: number): void {
    let digestAt = -1;
    let size = 0;
    for (let next = start; next < end; ) {
      const field = readField(data, next, end);
      if (field === undefined || field.end > end) throw notAList("a chunk breaks off");
      if (field.tag === DIGEST) {
        if (field.end - field.at !== B3Digest.LENGTH) {
          throw notAList(`a digest has ${field.end - field.at} bytes`);
        }
        digestAt = field.at;
      } else if (field.tag === SIZE) {
        size = field.value;
      }
      next = field.end;
    }
    if (digestAt < 0) throw notAList("a chunk has no digest");
    if (size > 0xffff_ffff) throw notAList(`a chunk has ${size} bytes`);
    if (this.#filled === this.#packed.length) this.#flush();
    data.copy(this.#packed, this.#filled, digestAt, digestAt + B3Digest.LENGTH);
    this.#packed.writeUInt32LE(size, this.#filled + B3Digest.LENGTH);
    this.#filled += ChunkList.ENTRY_BYTES;
  }

  #flush(): void {
    this.#list.append(this.#packed.subarray(0, this.#filled));
    this.#filled = 0;
  }
}

/** A field of a message. */
interface Field {
  readonly tag: number;
  /** Its value, if it is a number. */
  readonly value: number;
  /** Where its contents begin, and where they end, which may be behind what is there. */
  readonly at: number;
  readonly end: number;
}

/** Reads the head of a field, or all of a number; `undefined` where that is not complete. */
function readField(data: Buffer, start: number, limit: number): Field | undefined {
  const tag = readVarint(data, start, limit);
  if (tag === undefined) return undefined;
  const { value: number, end: at } = tag;
  if (number < 8) throw notAList("a field has number 0");
  switch (number & 7) {
    case 0: {
      const found = readVarint(data, at, limit);
      return found && { tag: number, value: found.value, at, end: found.end };
    }
    case 1:
      return { tag: number, value: 0, at, end: at + 8 };
    case 2: {
      const length = readVarint(data, at, limit);
      return length && { tag: number, value: 0, at: length.end, end: length.end + length.value };
    }
    case 5:
      return { tag: number, value: 0, at, end: at + 4 };
    default:
      throw notAList(`a field has wire type ${number & 7}`);
  }
}

/** Reads a number. Of one that is larger than a number holds exactly, the lower digits are lost. */
function readVarint(
  data: Buffer,
  start: number,
  limit: number,
): { value: number; end: number } | undefined {
  let value = 0;
  let scale = 1;
  for (let at = start; at < limit; at++) {
    if (at - start === 10) throw notAList("a number has more than 10 bytes");
    const byte = data[at]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, end: at + 1 };
    scale *= 128;
  }
  return undefined;
}

function notAList(reason: string): CastoreError {
  return new CastoreError("data_loss", `Cannot decode a list of chunks: ${reason}`);
}
