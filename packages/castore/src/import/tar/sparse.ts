import type { ByteReader } from "../../bytes/byte-reader.ts";
import {
  BLOCK_LENGTH,
  parseDecimal,
  parseNumber,
  type TarHeader,
  TarSyntaxError,
} from "./header.ts";

/** A part of a sparse file that the archive has, in bytes. Everything between the parts is zeros. */
interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** The parts of a sparse file, and its length in bytes. */
export interface SparseMap {
  readonly extents: readonly Extent[];
  readonly size: number;
}

/** Keys of an extended header for a sparse file whose last value counts. */
export const SPARSE_KEYS: readonly string[] = [
  "GNU.sparse.major",
  "GNU.sparse.minor",
  "GNU.sparse.name",
  "GNU.sparse.size",
  "GNU.sparse.realsize",
  "GNU.sparse.map",
];

/** Keys of an extended header that occur again for each part, in format 0.0. */
export const EXTENT_KEYS: readonly string[] = ["GNU.sparse.offset", "GNU.sparse.numbytes"];

/** Most parts of a file; they take some 16 MiB. */
const MAX_EXTENTS = 256 * 1024;

const ZEROS = new Uint8Array(64 * 1024);

const COMMA = 0x2c;
const NEWLINE = 0x0a;

/**
 * Reads the map of a file of kind `S` from its header and the blocks behind it.
 *
 * Format: GNU tar manual, "Storing Sparse Files", "Old GNU Format".
 *
 * @throws TarSyntaxError for what is no such map
 */
export async function readGnuMap({ block }: TarHeader, bytes: ByteReader): Promise<SparseMap> {
  const extents = new Extents();
  const size = parseNumber(block.subarray(483, 495), "size of a sparse file");
  extents.addFields(block.subarray(386, 482));
  for (let isExtended = block[482] !== 0; isExtended; ) {
    const extension = await bytes.take(BLOCK_LENGTH);
    extents.addFields(extension.subarray(0, 504));
    isExtended = extension[504] !== 0;
  }
  return extents.map(size);
}

/**
 * Reads the map of a file whose extended header says that it is sparse: from that header (formats 0.0 and 0.1) or from
 * the beginning of the contents (1.0).
 *
 * Format: GNU tar manual, "Storing Sparse Files", "PAX Format, Versions 0.0 and 0.1", "Version 1.0".
 *
 * @param values the last value of each key
 * @param offsetsAndLengths the values of {@link EXTENT_KEYS} in order
 * @returns `undefined` for a file that is not sparse
 * @throws TarSyntaxError for what is no such map
 */
export async function readPaxMap(
  values: ReadonlyMap<string, Buffer>,
  offsetsAndLengths: readonly Buffer[],
  bytes: ByteReader,
): Promise<SparseMap | undefined> {
  const major = values.get("GNU.sparse.major");
  const version = major && `${major}.${values.get("GNU.sparse.minor") ?? 0}`;
  if (version !== undefined && !["0.0", "0.1", "1.0"].includes(version)) {
    throw new TarSyntaxError(`expected a sparse file of version 0.0, 0.1 or 1.0, found ${version}`);
  }
  const realSize = values.get("GNU.sparse.realsize") ?? values.get("GNU.sparse.size");
  if (realSize === undefined) {
    if (version === undefined) return undefined;
    throw new TarSyntaxError("expected the size of a sparse file, found none");
  }
  const size = parseDecimal(realSize, "size of a sparse file");
  const extents = new Extents();
  if (version === "1.0") {
    await readLeadingMap(bytes, extents);
    return extents.map(size);
  }
  const map = values.get("GNU.sparse.map");
  extents.addDecimals(map === undefined ? offsetsAndLengths : splitAtCommas(map));
  return extents.map(size);
}

/** Reads the number of extents, and their offsets and lengths, each on a line. */
async function readLeadingMap(bytes: ByteReader, extents: Extents): Promise<void> {
  let block: Buffer = Buffer.alloc(0);
  const next = async () => {
    let end = block.indexOf(NEWLINE);
    if (end < 0) {
      block = Buffer.concat([block, await bytes.take(BLOCK_LENGTH)]); // a number may go on there
      end = block.indexOf(NEWLINE);
    }
    const digits = block.subarray(0, Math.max(end, 0));
    block = block.subarray(end + 1);
    return parseDecimal(digits, "part of the map of a sparse file");
  };
  for (let missing = await next(); missing > 0; missing--) extents.add(await next(), await next());
}

/** Yields the contents of a sparse file in pieces that are lent. */
export async function* expandSparse(
  { extents, size }: SparseMap,
  bytes: ByteReader,
): AsyncGenerator<Uint8Array> {
  let position = 0;
  for (const { offset, length } of extents) {
    yield* zeros(offset - position);
    yield* bytes.contents(length);
    position = offset + length;
  }
  yield* zeros(size - position);
}

function* zeros(length: number): Generator<Uint8Array> {
  for (let missing = length; missing > 0; missing -= ZEROS.length) {
    yield ZEROS.subarray(0, missing);
  }
}

/** Returns how many bytes of the file the archive has. */
export function storedSize({ extents }: SparseMap): number {
  return extents.reduce((sum, { length }) => sum + length, 0);
}

/** Collects and checks extents. */
class Extents {
  readonly #extents: Extent[] = [];
  #end = 0;

  add(offset: number, length: number): void {
    const end = offset + length;
    if (offset < this.#end || !Number.isSafeInteger(end)) {
      throw new TarSyntaxError(
        `expected a part of a sparse file behind byte ${this.#end}, found ${length} bytes from ${offset} on`,
      );
    }
    this.#end = end;
    if (length === 0) return; // an empty part marks the end of the file
    if (this.#extents.length === MAX_EXTENTS) {
      throw new TarSyntaxError(`expected a sparse file in at most ${MAX_EXTENTS} parts`);
    }
    this.#extents.push({ offset, length });
  }

  /** Adds the extents in the fields of a header, up to an empty field. */
  addFields(fields: Buffer): void {
    for (let at = 0; at < fields.length && fields[at] !== 0; at += 24) {
      const [offset, length] = [fields.subarray(at, at + 12), fields.subarray(at + 12, at + 24)];
      this.add(parseNumber(offset, "offset"), parseNumber(length, "length"));
    }
  }

  /** Adds extents from pairs of an offset and a length. */
  addDecimals(numbers: Iterable<Buffer>): void {
    let offset: number | undefined;
    for (const digits of numbers) {
      if (offset === undefined) {
        offset = parseDecimal(digits, "offset");
      } else {
        this.add(offset, parseDecimal(digits, "length"));
        offset = undefined;
      }
    }
    if (offset === undefined) return;
    throw new TarSyntaxError("expected a length for each offset of a sparse file");
  }

  map(size: number): SparseMap {
    if (this.#end > size) {
      throw new TarSyntaxError(
        `expected a sparse file of at least ${this.#end} bytes, found ${size}`,
      );
    }
    return { extents: this.#extents, size };
  }
}

function* splitAtCommas(text: Buffer): Generator<Buffer> {
  for (let at = 0; at < text.length; ) {
    const comma = text.indexOf(COMMA, at);
    const end = comma < 0 ? text.length : comma;
    yield text.subarray(at, end);
    at = end + 1;
  }
}
