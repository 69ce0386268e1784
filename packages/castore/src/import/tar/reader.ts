import { ByteReader } from "../../byte-reader.ts";
import { quoteBytes } from "../../bytes.ts";
import { CastoreError } from "../../errors.ts";
import type { IncomingFile } from "../contents-store.ts";
import { showFilePath } from "../file-error.ts";
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
  expandSparse,
  readGnuMap,
  readPaxMap,
  SPARSE_KEYS,
  type SparseMap,
  storedSize,
} from "./sparse.ts";

/** How much may stand before a member to say more about it, in bytes. */
const MAX_EXTENSION = 4 * 1024 * 1024;

/** Longest path of a member in bytes, which bounds how deep folders are in one another. */
const MAX_PATH = 32 * 1024;

const SLASH = 0x2f;

/** The right of the owner to execute a file. */
const EXECUTABLE = 0o100;

/** Kinds that have no place in a tree. */
const SPECIAL: Readonly<Record<string, string>> = {
  "3": "a character device",
  "4": "a block device",
  "6": "a fifo",
  M: "a part of a file that begins in another archive",
};

/** The keys of POSIX that are looked at. */
const KEYS: ReadonlySet<string> = new Set(["path", "linkpath", "size", ...SPARSE_KEYS]);

/** What an archive says, in its order. */
export type TarMember = {
  /** Where it is, as it stands in the archive: not validated, and perhaps with a slash at the end. */
  readonly path: Buffer;
} & (
  | { readonly type: "directory" }
  | { readonly type: "symlink"; readonly target: Buffer }
  /** What is at the path `target` is at `path`, too. */
  | { readonly type: "hardlink"; readonly target: Buffer }
  /** What is not read of the contents is skipped when the next member is asked for. */
  | ({ readonly type: "file" } & IncomingFile)
);

/**
 * Takes a tar archive apart, as it arrives. Holds no more of it than came at once, and what stands before a member.
 *
 * All kinds are read: of the seventh edition of Unix, POSIX (ustar and pax) and GNU, with long names of either, and
 * sparse files of GNU, which are given as if they were not. Names are bytes, which the libraries that read tar decode
 * as text, and so cannot give for names that are none.
 *
 * What follows the end of the archive is read and ignored, as it pads what the archive was written to.
 *
 * Iterating throws CastoreError `data_loss` for what is no archive or breaks off, naming the offset of the byte where,
 * `invalid_argument` for members that are no folders, files or links, naming the path; whatever the stream throws.
 */
export async function* readTar(stream: AsyncIterable<Uint8Array>): AsyncGenerator<TarMember> {
  await using bytes = new ByteReader(
    stream,
    (reason, at) =>
      new CastoreError("data_loss", `Cannot read tar archive: at byte ${at}: ${reason}`),
  );
  const global = new Map<string, Buffer>();
  for (;;) {
    const start = bytes.offset;
    try {
      const head = await readHead(bytes, global);
      if (head === undefined) break;
      yield* readMember(head, bytes);
    } catch (error) {
      if (!(error instanceof TarSyntaxError)) throw error;
      throw bytes.refusal(error.message, start);
    }
  }
  await bytes.skipRest(); // a compressed one is checked to its end
}

/** Everything that stands before the contents of a member. */
interface MemberHead {
  readonly header: TarHeader;
  /** What overrules the header, by key of POSIX. */
  readonly values: ReadonlyMap<string, Buffer>;
  /** What was said for this member alone. */
  readonly records: readonly PaxRecord[];
}

/** Reads to where the contents of the next member begin. `undefined` at the end of the archive. */
async function readHead(
  bytes: ByteReader,
  global: Map<string, Buffer>,
): Promise<MemberHead | undefined> {
  let records: PaxRecord[] = [];
  const names = new Map<string, Buffer>();
  for (;;) {
    const header = parseHeader(await bytes.take(BLOCK_LENGTH));
    if (header === undefined) {
      if (records.length === 0 && names.size === 0) return undefined;
      throw new TarSyntaxError("expected a member behind what is said about it, found the end");
    }
    switch (header.kind) {
      case "g":
        setAll(global, parsePax(await readExtension(header, bytes)));
        continue;
      case "x":
      case "X": // of Solaris
        records = parsePax(await readExtension(header, bytes));
        continue;
      case "L":
      case "K": {
        const name = await readExtension(header, bytes);
        names.set(header.kind === "L" ? "path" : "linkpath", textAt(name, 0, name.length));
        continue;
      }
      case "V": // the name of the archive
        continue;
    }
    const values = new Map(global);
    setAll(values, [...names, ...records]);
    return { header, values, records };
  }
}

/** Sets the values that are looked at; an empty one is none. */
function setAll(values: Map<string, Buffer>, records: Iterable<PaxRecord>): void {
  for (const [key, value] of records) {
    if (!KEYS.has(key)) continue;
    if (value.length > 0) values.set(key, value);
    else values.delete(key);
  }
}

/** Reads what stands behind a header that says more about what follows. */
async function readExtension({ size }: TarHeader, bytes: ByteReader): Promise<Buffer> {
  if (size > MAX_EXTENSION) {
    throw new TarSyntaxError(`expected an extended header of at most ${MAX_EXTENSION} bytes`);
  }
  const contents = Buffer.from(await bytes.take(size));
  await bytes.take(paddingLength(size));
  return contents;
}

/** How many bytes fill up the last block. */
function paddingLength(size: number): number {
  return (BLOCK_LENGTH - (size % BLOCK_LENGTH)) % BLOCK_LENGTH;
}

async function* readMember(
  { header, values, records }: MemberHead,
  bytes: ByteReader,
): AsyncGenerator<TarMember> {
  const path = values.get("GNU.sparse.name") ?? values.get("path") ?? header.path;
  if (path.length > MAX_PATH) {
    throw new TarSyntaxError(`expected a path of at most ${MAX_PATH} bytes, found ${path.length}`);
  }
  const target = values.get("linkpath") ?? header.target;
  switch (header.kind) {
    case "1":
      yield { type: "hardlink", path, target };
      return;
    case "2":
      yield { type: "symlink", path, target };
      return;
    case "5":
      yield { type: "directory", path };
      return;
  }
  const special = SPECIAL[header.kind];
  if (special !== undefined) throw refusal(path, special);
  const sizeValue = values.get("size");
  const size = sizeValue === undefined ? header.size : parseDecimal(sizeValue, "size");
  let map = header.kind === "S" ? await readGnuMap(header, bytes) : undefined;
  const end = bytes.offset + size;
  switch (header.kind) {
    case "D": // what was in the folder: whoever restores a backup removes what is not
      yield { type: "directory", path };
      break;
    case "0":
    case "7": // to be in one piece on its disk
    case "S":
      // Before there were kinds, this was how a folder was told.
      if (path.at(-1) === SLASH) {
        yield { type: "directory", path };
        break;
      }
      map ??= await readPaxMap(values, records, bytes);
      yield fileOf(path, header, map, end, bytes);
      break;
    default:
      throw refusal(path, `a member of kind ${quoteBytes(Buffer.from(header.kind, "latin1"))}`);
  }
  await bytes.skip(end - bytes.offset); // what nobody has read
  await bytes.take(paddingLength(size));
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
