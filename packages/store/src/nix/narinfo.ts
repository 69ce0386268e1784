/**
 * Parses and formats narinfos, by which binary caches describe store paths: lines of `Field: value`.
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { escapeText, inContext, quoteText, StoreError } from "../errors.ts";
import {
  type ContentAddress,
  formatContentAddress,
  parseContentAddress,
} from "./content-address.ts";
import { formatNixHash, type NixHash, nixHash, parseAnyNixHash } from "./nix-hash.ts";
import { encodeNixbase32 } from "./nixbase32.ts";
import { formatSignature, parseSignature, type Signature } from "./signature.ts";
import { isBaseNames, STORE_DIR, StorePath } from "./store-path.ts";

const DERIVATION_SUFFIX = ".drv";
/** The deriver in narinfos of old caches that do not know it. */
const UNKNOWN_DERIVER = "unknown-deriver";
const MAX_UINT64 = 2n ** 64n - 1n;

/** Fields that occur once. */
const FIELDS = new Set([
  "StorePath",
  "URL",
  "Compression",
  "FileHash",
  "FileSize",
  "NarHash",
  "NarSize",
  "References",
  "Deriver",
  "System",
  "CA",
]);
/** The field that may occur any number of times. */
const SIGNATURE = "Sig";

/** The fields of a narinfo. */
export interface NarInfoFields {
  readonly storePath: StorePath;
  /** URL of the compressed NAR, usually relative to that of the cache. */
  readonly url: string;
  /** Compression of the NAR, such as `none`, `xz` or `zstd`; `undefined` means `bzip2` to Nix. */
  readonly compression?: string | undefined;
  /** Hash of the compressed NAR. */
  readonly fileHash?: NixHash | undefined;
  /** Length of the compressed NAR in bytes, an unsigned 64-bit integer. */
  readonly fileSize?: bigint | undefined;
  /** SHA-256 digest of the NAR, 32 bytes. */
  readonly narSha256: Uint8Array;
  /** Length of the NAR in bytes, an unsigned 64-bit integer, not zero. */
  readonly narSize: bigint;
  /** The store paths that the contents refer to, in the order in which they were written. */
  readonly references: readonly StorePath[];
  /** The derivation that built the contents, its name without `.drv`; `undefined` if not known. */
  readonly deriver?: StorePath | undefined;
  /** The system that it was built for, such as `x86_64-linux`. */
  readonly system?: string | undefined;
  readonly signatures: readonly Signature[];
  /** What the store path was computed from; `undefined` if it is input-addressed. */
  readonly ca?: ContentAddress | undefined;
  /** Unknown fields, by name and value, in the order in which they were written. */
  readonly unknown?: readonly (readonly [field: string, value: string])[] | undefined;
}

/**
 * A narinfo. {@link NarInfo.toString} writes the fields in the order of Nix and hashes in nixbase32: a narinfo
 * that Nix wrote comes out byte for byte.
 */
export class NarInfo implements NarInfoFields {
  readonly storePath: StorePath;
  readonly url: string;
  readonly compression: string | undefined;
  readonly fileHash: NixHash | undefined;
  readonly fileSize: bigint | undefined;
  readonly narSha256: Uint8Array;
  readonly narSize: bigint;
  readonly deriver: StorePath | undefined;
  readonly system: string | undefined;
  readonly signatures: readonly Signature[];
  readonly ca: ContentAddress | undefined;
  readonly unknown: readonly (readonly [field: string, value: string])[];
  /** Base names, separated by single spaces. */
  readonly #referencesText: string;
  #references: readonly StorePath[] | undefined;

  private constructor(fields: Omit<NarInfoFields, "references">, referencesText: string) {
    this.storePath = fields.storePath;
    this.url = fields.url;
    this.compression = fields.compression;
    this.fileHash = fields.fileHash;
    this.fileSize = fields.fileSize;
    this.narSha256 = fields.narSha256;
    this.narSize = fields.narSize;
    this.deriver = fields.deriver;
    this.system = fields.system;
    this.signatures = fields.signatures;
    this.ca = fields.ca;
    this.unknown = fields.unknown ?? [];
    this.#referencesText = referencesText;
  }

  /**
   * Makes a narinfo of its fields.
   *
   * @throws StoreError `invalid_argument` naming the field and the rule that is broken
   */
  static from(fields: NarInfoFields): NarInfo {
    const check = <T>(field: string, parse: (value: T) => void, value: T | undefined) => {
      if (value !== undefined) inContext(`Cannot make narinfo: ${field}`, () => parse(value));
    };
    check("URL", expectWord, fields.url);
    check("Compression", expectWord, fields.compression);
    check("FileSize", expectSize, fields.fileSize);
    check("NarHash", (digest) => nixHash("sha256", digest), fields.narSha256);
    check("NarSize", expectNarSize, fields.narSize);
    check("System", expectWord, fields.system);
    for (const [field, value] of fields.unknown ?? []) {
      check(field, expectUnknown, [field, value] as const);
    }
    return new NarInfo(fields, fields.references.join(" "));
  }

  /**
   * Parses a narinfo. The fields may come in any order, each ends with a line feed. Hashes may have any form of
   * Nix. The deriver `unknown-deriver` of old caches counts as unknown.
   *
   * @param options.storeDir the store dir of its store path. Default: `/nix/store`
   * @throws StoreError `invalid_argument` naming the line, the field and the rule that is broken: a field that
   *   is missing, occurs twice, or has an invalid value
   */
  static parse(text: string, { storeDir = STORE_DIR }: { storeDir?: string } = {}): NarInfo {
    const lines = new Lines(text);
    return new NarInfo(
      {
        storePath: lines.required("StorePath", (path) => StorePath.parseAbsolute(path, storeDir)),
        url: lines.required("URL", expectWord),
        compression: lines.optional("Compression", expectWord),
        fileHash: lines.optional("FileHash", parseAnyNixHash),
        fileSize: lines.optional("FileSize", parseSize),
        narSha256: lines.required("NarHash", parseNarHash),
        narSize: lines.required("NarSize", parseNarSize),
        deriver: lines.optional("Deriver", parseDeriver),
        system: lines.optional("System", expectWord),
        signatures: lines.signatures(),
        ca: lines.optional("CA", parseContentAddress),
        unknown: lines.unknown(),
      },
      lines.optional("References", expectReferences) ?? "",
    );
  }

  /** The store paths that the contents refer to, in the order in which they were written. */
  get references(): readonly StorePath[] {
    // Parsing them takes longer than everything else, and most callers need only the text.
    this.#references ??= splitWords(this.#referencesText).map(StorePath.parse);
    return this.#references;
  }

  /** Formats the narinfo, as {@link NarInfo.parse} reads it. */
  toString({ storeDir = STORE_DIR }: { storeDir?: string } = {}): string {
    const { compression, fileHash, fileSize, deriver, system, ca } = this;
    let text = `StorePath: ${this.storePath.toAbsolutePath(storeDir)}\nURL: ${this.url}\n`;
    if (compression !== undefined) text += `Compression: ${compression}\n`;
    if (fileHash !== undefined) text += `FileHash: ${formatNixHash(fileHash)}\n`;
    if (fileSize !== undefined) text += `FileSize: ${fileSize}\n`;
    text += `NarHash: sha256:${encodeNixbase32(this.narSha256)}\nNarSize: ${this.narSize}\n`;
    text += `References: ${this.#referencesText}\n`;
    if (deriver !== undefined) text += `Deriver: ${deriver}${DERIVATION_SUFFIX}\n`;
    if (system !== undefined) text += `System: ${system}\n`;
    for (const signature of this.signatures) text += `Sig: ${formatSignature(signature)}\n`;
    if (ca !== undefined) text += `CA: ${formatContentAddress(ca)}\n`;
    for (const [field, value] of this.unknown) text += `${field}: ${value}\n`;
    return text;
  }
}

interface Line {
  /** The line number, from 1. */
  readonly number: number;
  readonly field: string;
  readonly value: string;
}

/** The lines of a narinfo by field. */
class Lines {
  readonly #single = new Map<string, Line>();
  readonly #signatures: Line[] = [];
  readonly #unknown: Line[] = [];

  constructor(text: string) {
    let start = 0;
    for (let number = 1; start < text.length; number++) {
      const end = text.indexOf("\n", start);
      if (end < 0) throw invalidLine(number, "expected a line feed at its end");
      const colon = text.indexOf(":", start);
      if (colon <= start || colon > end || text[colon + 1] !== " ") {
        const found = text.slice(start, end);
        throw invalidLine(number, `expected "Field: value", found ${quoteText(found)}`);
      }
      const value = text.slice(colon + 2, end);
      this.#add({ number, field: text.slice(start, colon), value });
      start = end + 1;
    }
  }

  required<T>(field: string, parse: (value: string) => T): T {
    const line = this.#single.get(field);
    if (line === undefined) throw invalid(`expected a field "${field}", found none`);
    return parseLine(line, parse);
  }

  optional<T>(field: string, parse: (value: string) => T): T | undefined {
    const line = this.#single.get(field);
    return line && parseLine(line, parse);
  }

  signatures(): Signature[] {
    return this.#signatures.map((line) => parseLine(line, parseSignature));
  }

  unknown(): (readonly [field: string, value: string])[] {
    return this.#unknown.map((line) =>
      parseLine(line, (value) => expectUnknown([line.field, value])),
    );
  }

  #add(line: Line): void {
    const { number, field } = line;
    if (field === SIGNATURE) this.#signatures.push(line);
    else if (!FIELDS.has(field)) this.#unknown.push(line);
    else if (!this.#single.has(field)) this.#single.set(field, line);
    else throw invalidLine(number, `expected the field ${quoteText(field)} once, found it twice`);
  }
}

function parseLine<T>({ number, field, value }: Line, parse: (value: string) => T): T {
  return inContext(`Cannot parse narinfo: line ${number}, ${escapeText(field)}`, () =>
    parse(value),
  );
}

function expectWord(value: string): string {
  if (!/^[^\s\p{Cc}]+$/u.test(value)) {
    throw refusal(`expected text without spaces and control characters, found ${quoteText(value)}`);
  }
  return value;
}

function expectUnknown(line: readonly [field: string, value: string]): typeof line {
  const [field, value] = line;
  if (FIELDS.has(field) || field === SIGNATURE || !/^[^:\p{Cc}]+$/u.test(field)) {
    throw refusal(`expected the name of another field, found ${quoteText(field)}`);
  }
  if (/\p{Cc}/u.test(value)) {
    throw refusal(`expected text without control characters, found ${quoteText(value)}`);
  }
  return line;
}

function parseSize(value: string): bigint {
  if (!/^(0|[1-9][0-9]{0,19})$/.test(value)) {
    throw refusal(`expected an unsigned 64-bit number, found ${quoteText(value)}`);
  }
  return expectSize(BigInt(value));
}

function expectSize(size: bigint): bigint {
  if (size >= 0n && size <= MAX_UINT64) return size;
  throw refusal(`expected an unsigned 64-bit number, found "${size}"`);
}

function parseNarSize(value: string): bigint {
  return expectNarSize(parseSize(value));
}

/** Refuses zero: Nix takes it for a missing size, and no NAR is that short. */
function expectNarSize(size: bigint): bigint {
  if (size === 0n) throw refusal('expected more than zero, found "0"');
  return expectSize(size);
}

function parseNarHash(value: string): Uint8Array {
  const { algorithm, digest } = parseAnyNixHash(value);
  if (algorithm !== "sha256") throw refusal(`expected a hash by sha256, found ${quoteText(value)}`);
  return digest;
}

function parseDeriver(value: string): StorePath | undefined {
  if (value === UNKNOWN_DERIVER) return undefined;
  if (!value.endsWith(DERIVATION_SUFFIX)) {
    throw refusal(`expected the store path of a derivation, found ${quoteText(value)}`);
  }
  return StorePath.parse(value.slice(0, -DERIVATION_SUFFIX.length));
}

/** Checks that a value is base names separated by single spaces. */
function expectReferences(value: string): string {
  // Parsing tells what is wrong.
  if (!isBaseNames(value)) splitWords(value).forEach(StorePath.parse);
  return value;
}

function splitWords(text: string): string[] {
  return text === "" ? [] : text.split(" ");
}

function invalidLine(number: number, reason: string): StoreError {
  return invalid(`line ${number}: ${reason}`);
}

function invalid(reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot parse narinfo: ${reason}`);
}

/** Makes the error for a value; the caller puts the field in front. */
function refusal(reason: string): StoreError {
  return new StoreError("invalid_argument", reason);
}
