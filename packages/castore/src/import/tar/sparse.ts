import type { ByteReader } from "../../bytes/byte-reader.ts";
import {
  BLOCK_LENGTH,
  parseDecimal,
  parseNumber,
  type TarHeader,
  TarSyntaxError,
} from "./header.ts";

/** A part of a sparse file that is in the archive, in bytes. Between those there are zeros. */
interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Which parts of a file are in the archive, and how long the file is. */
export interface SparseMap {
  readonly extents: readonly Extent[];
  readonly size: number;
}

/** What an extended header says of a sparse file: these keys count by their last value. */
export const SPARSE_KEYS: readonly string[] = [
  "GNU.sparse.major",
  "GNU.sparse.minor",
  "GNU.sparse.name",
  "GNU.sparse.size",
  "GNU.sparse.realsize",
  "GNU.sparse.map",
];

/** These say where each part is that is in the archive, in format 0.0, and occur for each again. */
export const EXTENT_KEYS: readonly string[] = ["GNU.sparse.offset", "GNU.sparse.numbytes"];

/** In how many parts a file may be, 16 MiB in memory or so. */
const MAX_EXTENTS = 256 * 1024;

/** Zeros to give out. */
const ZEROS = new Uint8Array(64 * 1024);

const COMMA = 0x2c;
const NEWLINE = 0x0a;

/**
 * Reads the map of a file of the kind `S`: it stands in the header, and in blocks behind it.
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
 * Reads the map of a file whose extended header says that it is sparse. It stands there (formats 0.0 and 0.1), or is
 * what the contents begin with (1.0).
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

/** Reads numbers, each on a line: how many extents there are, and their offsets and lengths. */
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

/** The contents of a sparse file, in pieces that are lent. */
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

/** How many bytes of the file are in the archive. */
export function storedSize({ extents }: SparseMap): number {
  return extents.reduce((sum, { length }) => sum + length, 0);
}

/** Extents that are being read. */
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
    if (length === 0) return; // says where the file ends
    if (this.#extents.length === MAX_EXTENTS) {
      throw new TarSyntaxError(`expected a sparse file in at most ${MAX_EXTENTS} parts`);
    }
    this.#extents.push({ offset, length });
  }

  /** Adds those of a header, up to one that is left empty. */
  addFields(fields: Buffer): void {
    for (let at = 0; at < fields.length && fields[at] !== 0; at += 24) {
      const [offset, length] = [fields.subarray(at, at + 12), fields.subarray(at + 12, at + 24)];
      this.add(parseNumber(offset, "offset"), parseNumber(length, "length"));
    }
  }

  /** Adds extents, each an offset and a length. */
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
