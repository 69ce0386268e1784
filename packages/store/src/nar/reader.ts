import {
  ByteReader,
  CastoreError,
  compareBytes,
  type PathComponent,
  pathComponent,
  quoteBytes,
  type SymlinkTarget,
  symlinkTarget,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import {
  CLOSE,
  DIRECTORY,
  ENTRY,
  ENTRY_NODE,
  EXECUTABLE_FILE,
  FILE,
  NUMBER_LENGTH,
  paddingLength,
  SYMLINK,
} from "./wire.ts";

/** How deep directories may be nested. */
const MAX_DEPTH = 16_384;

/** Longest string beside file contents, in bytes: the longest target of a symlink. */
const MAX_STRING = 4095;

/**
 * One event of a NAR. A node is `directory`, `file` or `symlink`. Between `directory` and its `end`, each
 * entry is `entry`, with its name, followed by the events of its node.
 */
export type NarEvent =
  | { readonly type: "directory" }
  | { readonly type: "end" }
  | { readonly type: "entry"; readonly name: PathComponent }
  | { readonly type: "symlink"; readonly target: SymlinkTarget }
  | {
      readonly type: "file";
      /** Length of the contents in bytes. */
      readonly size: number;
      readonly executable: boolean;
      /**
       * The contents, in pieces that are valid until the next one is requested. Whatever was not read is
       * skipped when the next event is requested.
       */
      readonly contents: AsyncIterable<Uint8Array>;
    };

/**
 * Parses a NAR as it arrives. Holds no more of it than one piece of the stream.
 *
 * Checks every byte: tokens, lengths, padding, names that are unique and sorted bytewise, and that nothing follows the
 * root.
 *
 * Iterating throws StoreError `invalid_argument` for a stream that is not a NAR, naming the byte offset and the rule;
 * whatever the stream throws.
 */
export async function* readNar(stream: AsyncIterable<Uint8Array>): AsyncGenerator<NarEvent> {
  await using bytes = new NarBytes(stream);
  await expectToken(bytes, ["nix-archive-1"]);
  /** The last name in each open directory. */
  const open: (PathComponent | undefined)[] = [];
  let isNode = true;
  for (;;) {
    if (isNode) {
      const type = await readNodeHead(bytes);
      if (type === "directory") {
        if (open.length === MAX_DEPTH) {
          throw bytes.refusal(`expected directories at most ${MAX_DEPTH} deep`);
        }
        yield { type };
        open.push(undefined);
        isNode = false;
        continue;
      }
      if (type === "symlink") yield { type, target: await readTarget(bytes) };
      else yield* readFile(bytes, type === "executable");
      await expectClose(bytes);
    } else {
      if (await readEntryHead(bytes)) {
        const name = await readEntryName(bytes, open.at(-1));
        yield { type: "entry", name };
        open[open.length - 1] = name;
        isNode = true;
        continue;
      }
      open.pop();
      yield { type: "end" };
    }
    // A node has ended: it is the root, or that of an entry.
    if (open.length === 0) break;
    await expectClose(bytes);
    isNode = false;
  }
  await bytes.expectEnd();
}

// Tokens that always follow one another are compared as a whole if they have all arrived. Otherwise, or if they differ,
// they are read one by one, which tells the offset at which a rule is broken.

/** Reads the tokens before the target of a symlink, the length of a file or the entries of a directory. */
async function readNodeHead(
  bytes: NarBytes,
): Promise<"directory" | "symlink" | "regular" | "executable"> {
  if (bytes.takeIf(FILE)) return "regular";
  if (bytes.takeIf(EXECUTABLE_FILE)) return "executable";
  if (bytes.takeIf(DIRECTORY)) return "directory";
  if (bytes.takeIf(SYMLINK)) return "symlink";
  await expectToken(bytes, ["("]);
  await expectToken(bytes, ["type"]);
  const type = await expectToken(bytes, ["regular", "directory", "symlink"]);
  if (type === "directory") return type;
  if (type === "symlink") {
    await expectToken(bytes, ["target"]);
    return type;
  }
  if ((await expectToken(bytes, ["executable", "contents"])) === "contents") return type;
  await expectToken(bytes, [""]);
  await expectToken(bytes, ["contents"]);
  return "executable";
}

/** Reads the tokens before the name of an entry; returns `false` at the end of the directory. */
async function readEntryHead(bytes: NarBytes): Promise<boolean> {
  if (bytes.takeIf(ENTRY)) return true;
  if (bytes.takeIf(CLOSE)) return false;
  if ((await expectToken(bytes, ["entry", ")"])) === ")") return false;
  await expectToken(bytes, ["("]);
  await expectToken(bytes, ["name"]);
  return true;
}

async function expectClose(bytes: NarBytes): Promise<void> {
  if (!bytes.takeIf(CLOSE)) await expectToken(bytes, [")"]);
}

async function readTarget(bytes: NarBytes): Promise<SymlinkTarget> {
  const at = bytes.offset;
  const target = await bytes.string(MAX_STRING, "the target of a symlink");
  return valid(bytes, at, () => symlinkTarget(target));
}

async function* readFile(bytes: NarBytes, executable: boolean): AsyncGenerator<NarEvent> {
  const at = bytes.offset;
  const size = await bytes.length();
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw bytes.refusal(
      `expected a length of at most ${Number.MAX_SAFE_INTEGER}, found ${size}`,
      at,
    );
  }
  const end = bytes.offset + Number(size);
  yield { type: "file", size: Number(size), executable, contents: bytes.contents(Number(size)) };
  await bytes.skip(end - bytes.offset); // the rest of the contents
  await bytes.padding(Number(size));
}

async function readEntryName(
  bytes: NarBytes,
  before: PathComponent | undefined,
): Promise<PathComponent> {
  const at = bytes.offset;
  const text = await bytes.string(MAX_STRING, "a name");
  const name = valid(bytes, at, () => pathComponent(text));
  if (before !== undefined && compareBytes(before, name) >= 0) {
    const rule = `expected a name that sorts after ${quoteBytes(before)}`;
    throw bytes.refusal(`${rule}, found ${quoteBytes(name)}`, at);
  }
  if (!bytes.takeIf(ENTRY_NODE)) await expectToken(bytes, ["node"]);
  return name;
}

/** Reads one of a few tokens. */
async function expectToken<Token extends string>(
  bytes: NarBytes,
  tokens: readonly Token[],
): Promise<Token> {
  const at = bytes.offset;
  const found = await bytes.string(MAX_STRING, "a token");
  const token = tokens.find((token) => found.length === token.length && isText(found, token));
  if (token !== undefined) return token;
  const expected = tokens.map((token) => `"${token}"`).join(" or ");
  throw bytes.refusal(`expected ${expected}, found ${quoteBytes(found)}`, at);
}

function isText(bytes: Uint8Array, text: string): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== text.charCodeAt(i)) return false;
  return true;
}

function valid<T>(bytes: NarBytes, at: number, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    throw bytes.refusal(error.message, at);
  }
}

/** Reads strings, numbers and padding of a NAR from a stream. */
class NarBytes extends ByteReader {
  constructor(stream: AsyncIterable<Uint8Array>) {
    super(
      stream,
      (reason, at) =>
        new StoreError("invalid_argument", `Cannot read NAR: at byte ${at}: ${reason}`),
    );
  }

  /** Reads a string with its length and padding. Returns a copy. */
  async string(maxLength: number, what: string): Promise<Uint8Array> {
    const start = this.offset;
    const length = await this.length();
    if (length > BigInt(maxLength)) {
      throw this.refusal(`expected ${what} of at most ${maxLength} bytes, found ${length}`, start);
    }
    const bytes = new Uint8Array(await this.take(Number(length)));
    await this.padding(bytes.length);
    return bytes;
  }

  /** Reads an unsigned 64-bit integer. */
  async length(): Promise<bigint> {
    return (await this.take(NUMBER_LENGTH)).readBigUInt64LE();
  }

  /** Reads the padding after a string of `length` bytes. */
  async padding(length: number): Promise<void> {
    const at = this.offset;
    const zeros = await this.take(paddingLength(length));
    const wrong = zeros.findIndex((byte) => byte !== 0);
    if (wrong >= 0)
      throw this.refusal(`expected zeros as padding, found ${zeros[wrong]}`, at + wrong);
  }

  async expectEnd(): Promise<void> {
    if (!(await this.isAtEnd())) throw this.refusal("expected the end, found more");
  }
}
