import { ByteReader } from "../../bytes/byte-reader.ts";
import { quoteBytes } from "../../bytes/byte-string.ts";
import { showFilePath } from "../../disk/file-error.ts";
import { CastoreError } from "../../model/errors.ts";
import type { IncomingFile } from "../contents-store.ts";
import {
  BLOCK_LENGTH,
  parseDecimal,
  parseHeader,
  type TarHeader,
  TarSyntaxError,
  textAt,
} from "./header.ts";
import { type PaxRecord, parsePax } from "./pax.ts";
import {
  EXTENT_KEYS,
  expandSparse,
  readGnuMap,
  readPaxMap,
  SPARSE_KEYS,
  type SparseMap,
  storedSize,
} from "./sparse.ts";

/** Longest extended header in bytes. */
const MAX_EXTENSION = 4 * 1024 * 1024;

/** Longest path of a member in bytes, which bounds the depth of folders. */
const MAX_PATH = 32 * 1024;

const SLASH = 0x2f;

/** Bit of the mode that lets the owner execute a file. */
const EXECUTABLE = 0o100;

/** Kinds of members that no tree can have. */
const SPECIAL: Readonly<Record<string, string>> = {
  "3": "a character device",
  "4": "a block device",
  "6": "a fifo",
  M: "a part of a file that begins in another archive",
};

/** Keys of star and of the tar of Solaris for files whose holes they leave out. */
const FOREIGN_SPARSE_KEYS: readonly string[] = ["SCHILY.realsize", "SUN.holesdata"];

/** Keys of extended headers whose last value counts. */
const KEYS: ReadonlySet<string> = new Set([
  "path",
  "linkpath",
  "size",
  ...SPARSE_KEYS,
  ...FOREIGN_SPARSE_KEYS,
]);

/** A member of an archive. */
export type TarMember = {
  /** Its path in the archive: not validated, and perhaps with a slash at the end. */
  readonly path: Buffer;
} & (
  | { readonly type: "directory" }
  | { readonly type: "symlink"; readonly target: Buffer }
  /** A second name for the file or symlink at `target`. */
  | { readonly type: "hardlink"; readonly target: Buffer }
  /** Contents that are not read are skipped when the next member is asked for. */
  | ({ readonly type: "file"; readonly executable: boolean } & IncomingFile)
);

/**
 * Reads the members of a tar archive as they arrive. Holds one piece of the stream, and the extended headers of one
 * member.
 *
 * Reads the formats of the seventh edition of Unix, POSIX (ustar and pax) and GNU, with the long names of each, and
 * sparse files of GNU, expanded. Names are bytes; the libraries for tar decode them as text, and lose those that are
 * no UTF-8.
 *
 * A block of zeros ends the archive, or the end of the stream behind a member, as in GNU tar. What follows the block
 * is read and ignored.
 *
 * Iterating throws CastoreError `data_loss` for what is no archive or breaks off within a member, with the offset of
 * the byte; `invalid_argument` for members that are no folders, files or links, with the path; whatever the stream
 * throws.
 *
 * @param name what is read, for messages
 */
export async function* readTar(
  stream: AsyncIterable<Uint8Array>,
  name = "tar archive",
): AsyncGenerator<TarMember> {
  await using bytes = new ByteReader(
    stream,
    (reason, at) => new CastoreError("data_loss", `Cannot read ${name}: at byte ${at}: ${reason}`),
  );
  const global = new Map<string, Buffer>();
  for (;;) {
    const found = await readMember(bytes, global);
    if (found === undefined) break;
    yield found.member;
    await bytes.skip(found.end - bytes.offset); // contents that were not read
    await bytes.take(paddingLength(found.end - found.start));
  }
  await bytes.skipRest(); // so that a compressed archive is checked to its end
}

/** A member, and the offsets of its contents without the padding. */
interface FoundMember {
  readonly member: TarMember;
  readonly start: number;
  readonly end: number;
}

/** Reads up to the contents of the next member. Returns `undefined` at the end of the archive. */
async function readMember(
  bytes: ByteReader,
  global: Map<string, Buffer>,
): Promise<FoundMember | undefined> {
  const offset = bytes.offset;
  try {
    const head = await readHead(bytes, global);
    return head && (await memberOf(head, bytes));
  } catch (error) {
    if (!(error instanceof TarSyntaxError)) throw error;
    throw bytes.refusal(error.message, offset);
  }
}

/** A header with its extended headers. */
interface MemberHead {
  readonly header: TarHeader;
  /** Values that override the header, by key of an extended header. */
  readonly values: ReadonlyMap<string, Buffer>;
  /** Values of {@link EXTENT_KEYS}, in order. */
  readonly extents: readonly Buffer[];
}

/** Reads the headers of the next member. Returns `undefined` at the end of the archive. */
async function readHead(
  bytes: ByteReader,
  global: Map<string, Buffer>,
): Promise<MemberHead | undefined> {
  let names: Map<string, Buffer> | undefined;
  let extended: ExtendedHeader | undefined;
  for (;;) {
    const hasNoMore = bytes.offset > 0 && (await bytes.isAtEnd());
    const header = hasNoMore ? undefined : parseHeader(await bytes.take(BLOCK_LENGTH));
    if (header === undefined) {
      if (names === undefined && extended === undefined) return undefined;
      throw new TarSyntaxError("expected a member behind an extended header, found the end");
    }
    switch (header.kind) {
      case "g":
        overrule(global, parseExtended(await readExtension(header, bytes)).values);
        continue;
      case "x":
      case "X": // of Solaris
        extended = parseExtended(await readExtension(header, bytes));
        continue;
      case "L":
      case "K": {
        const name = await readExtension(header, bytes);
        names ??= new Map();
        names.set(header.kind === "L" ? "path" : "linkpath", textAt(name, 0, name.length));
        continue;
      }
      case "V": // the name of the archive
        continue;
    }
    if (names === undefined && extended === undefined) {
      return { header, values: global, extents: [] };
    }
    const values = new Map(global);
    overrule(values, names ?? []);
    overrule(values, extended?.values ?? []);
    return { header, values, extents: extended?.extents ?? [] };
  }
}

/** Values of an extended header that are used. */
type ExtendedHeader = Pick<MemberHead, "values" | "extents">;

/** Reads the values of an extended header that are used: it may have a million records. */
function parseExtended(bytes: Buffer): ExtendedHeader {
  const values = new Map<string, Buffer>();
  const extents: Buffer[] = [];
  for (const [key, value] of parsePax(bytes)) {
    if (EXTENT_KEYS.includes(key)) extents.push(value);
    else if (KEYS.has(key)) values.set(key, value);
  }
  return { values, extents };
}

/** Overrides values; an empty value deletes. */
function overrule(values: Map<string, Buffer>, by: Iterable<PaxRecord>): void {
  for (const [key, value] of by) {
    if (value.length > 0) values.set(key, value);
    else values.delete(key);
  }
}

/** Reads the contents of an extended header. */
async function readExtension({ size }: TarHeader, bytes: ByteReader): Promise<Buffer> {
  if (size > MAX_EXTENSION) {
    throw new TarSyntaxError(`expected an extended header of at most ${MAX_EXTENSION} bytes`);
  }
  const contents = Buffer.from(await bytes.take(size));
  await bytes.take(paddingLength(size));
  return contents;
}

/** Returns the number of bytes that pad contents to a whole block. */
function paddingLength(size: number): number {
  return (BLOCK_LENGTH - (size % BLOCK_LENGTH)) % BLOCK_LENGTH;
}

/** Makes a member of its headers and, for some sparse files, the beginning of its contents. */
async function memberOf(
  { header, values, extents }: MemberHead,
  bytes: ByteReader,
): Promise<FoundMember> {
  const path = values.get("GNU.sparse.name") ?? values.get("path") ?? header.path;
  if (path.length > MAX_PATH) {
    throw new TarSyntaxError(`expected a path of at most ${MAX_PATH} bytes, found ${path.length}`);
  }
  const target = values.get("linkpath") ?? header.target;
  const [kind, start] = [header.kind, bytes.offset];
  // Whatever size they state, nothing stands behind them.
  if (kind === "1") return { member: { type: "hardlink", path, target }, start, end: start };
  if (kind === "2") return { member: { type: "symlink", path, target }, start, end: start };
  if (kind === "5") return { member: { type: "directory", path }, start, end: start };
  const special = SPECIAL[kind];
  if (special !== undefined) throw refusal(path, special);
  const sizeValue = values.get("size");
  const size = sizeValue === undefined ? header.size : parseDecimal(sizeValue, "size");
  switch (kind) {
    case "D": // what was in the folder: whoever restores a backup removes what is not
      return { member: { type: "directory", path }, start, end: start + size };
    case "7": // to be in one piece on its disk
    case "0": {
      const end = start + size;
      // Before there were kinds, this was how a folder was told.
      if (path.at(-1) === SLASH) return { member: { type: "directory", path }, start, end };
      const foreign = FOREIGN_SPARSE_KEYS.find((key) => values.has(key));
      if (foreign !== undefined) throw refusal(path, `a sparse file as ${foreign} describes it`);
      const map = await readPaxMap(values, extents, bytes);
      return { member: fileOf(path, header, map, end, bytes), start, end };
    }
    case "S": {
      if (!header.isGnu)
        throw refusal(path, "a sparse file in another format than that of GNU tar");
      const map = await readGnuMap(header, bytes);
      const start = bytes.offset; // the map is not part of the contents
      const end = start + size;
      return { member: fileOf(path, header, map, end, bytes), start, end };
    }
    default:
      throw refusal(path, `a member of kind ${quoteBytes(Buffer.from(kind, "latin1"))}`);
  }
}

function fileOf(
  path: Buffer,
  { mode }: TarHeader,
  map: SparseMap | undefined,
  end: number,
  bytes: ByteReader,
): TarMember {
  const executable = (mode & EXECUTABLE) !== 0;
  const stored = end - bytes.offset;
  if (map === undefined) {
    return { type: "file", path, executable, size: stored, contents: bytes.contents(stored) };
  }
  const expected = storedSize(map);
  if (stored !== expected) {
    throw new TarSyntaxError(`expected ${expected} bytes of a sparse file, found ${stored}`);
  }
  return { type: "file", path, executable, size: map.size, contents: expandSparse(map, bytes) };
}

function refusal(path: Buffer, found: string): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot import ${showFilePath(path)} of an archive: expected a file, folder or link, found ${found}`,
  );
}
