import { quoteText, StoreError } from "../errors.ts";
import { decodeNixbase32, encodeNixbase32, isNixbase32, nixbase32Length } from "./nixbase32.ts";

/** The default store dir of Nix. */
export const STORE_DIR = "/nix/store";

const MAX_NAME_LENGTH = 211;

/** The characters of names, for a regular expression. */
const NAME_CHARACTERS = "a-zA-Z0-9+\\-._?=";
const NOT_IN_NAMES = new RegExp(`[^${NAME_CHARACTERS}]`, "u");
/** A store path: a hash part and a name, without a store dir. */
export class StorePath {
  /** Length of the hash part in bytes. */
  static readonly HASH_PART_LENGTH = 20;

  /** 20 bytes. Must not be changed. */
  readonly hashPart: Uint8Array;
  /** 1 to 211 characters of `[a-zA-Z0-9+._?=-]`, of which those before the first dash are not `.` or `..`. */
  readonly name: string;

  private constructor(hashPart: Uint8Array, name: string) {
    this.hashPart = hashPart;
    this.name = name;
  }

  /**
   * Makes a store path from its parts.
   *
   * @throws StoreError `invalid_argument` if the hash part is not 20 bytes long or the name is invalid
   */
  static from(hashPart: Uint8Array, name: string): StorePath {
    expectHashPart(hashPart);
    validateStorePathName(name);
    return new StorePath(hashPart, name);
  }

  /** Makes a store path of parts that are known to be valid, such as those of {@link isBaseName}. */
  static ofValid(hashPart: Uint8Array, name: string): StorePath {
    return new StorePath(hashPart, name);
  }

  /**
   * Parses a base name, such as `00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432`.
   *
   * @throws StoreError `invalid_argument` for anything else
   */
  static parse(baseName: string): StorePath {
    const length = HASH_PART_CHARACTERS;
    if (baseName[length] !== "-") {
      throw invalidPath(baseName, `expected ${length} characters, a dash and a name`);
    }
    return StorePath.from(decodeNixbase32(baseName.slice(0, length)), baseName.slice(length + 1));
  }

  /**
   * Parses the absolute path of a store path. Paths below one are refused.
   *
   * @throws StoreError `invalid_argument` for anything else
   */
  static parseAbsolute(path: string, storeDir: string = STORE_DIR): StorePath {
    return StorePath.parse(belowStoreDir(path, storeDir));
  }

  /**
   * Parses the absolute path of a store path, or a path below one.
   *
   * @returns the store path, and the names below it; none for the store path itself
   * @throws StoreError `invalid_argument` for a path that is not below the store dir, and for empty
   *   names, `.` and `..`
   */
  static parseBelow(
    path: string,
    storeDir: string = STORE_DIR,
  ): { storePath: StorePath; names: string[] } {
    const [first = "", ...names] = belowStoreDir(path, storeDir).split("/");
    const wrong = names.find((name) => name === "" || name === "." || name === "..");
    if (wrong !== undefined) {
      throw invalidPath(path, `expected names below the store path, found ${quoteText(wrong)}`);
    }
    return { storePath: StorePath.parse(first), names };
  }

  /** Returns the base name: the hash part in nixbase32, a dash, and the name. */
  toString(): string {
    return `${encodeNixbase32(this.hashPart)}-${this.name}`;
  }

  /** Returns the path in the file system. */
  toAbsolutePath(storeDir: string = STORE_DIR): string {
    return `${storeDir}/${this}`;
  }
}

/** Each encodes 5 bits, with none left over. */
const HASH_PART_CHARACTERS = nixbase32Length(StorePath.HASH_PART_LENGTH);

const SCRATCH = Buffer.allocUnsafeSlow(64 * 1024);
const DASH = 0x2d;
const DOT = 0x2e;
const SPACE = 0x20;
/** 1 for each byte that may occur in a name, and in a hash part. */
const IN_NAMES = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte < 128 && !NOT_IN_NAMES.test(String.fromCharCode(byte)) ? 1 : 0,
);
const IN_HASH_PARTS = Uint8Array.from({ length: 256 }, (_, byte) => (isNixbase32(byte) ? 1 : 0));

/** Returns the part of a path after the store dir and a slash. */
function belowStoreDir(path: string, storeDir: string): string {
  if (path.startsWith(`${storeDir}/`)) return path.slice(storeDir.length + 1);
  throw invalidPath(path, `expected it to start with "${storeDir}/"`);
}

function invalidPath(path: string, reason: string): StoreError {
  return new StoreError(
    "invalid_argument",
    `Cannot parse store path ${quoteText(path)}: ${reason}`,
  );
}

/**
 * Checks the name of a store path.
 *
 * @throws StoreError `invalid_argument` naming the rule that is broken
 */
export function validateStorePathName(name: string): void {
  const refuse = (reason: string) =>
    new StoreError(
      "invalid_argument",
      `Cannot use ${quoteText(name)} as the name of a store path: ${reason}`,
    );
  if (name.length === 0 || name.length > MAX_NAME_LENGTH) {
    throw refuse(`expected 1 to ${MAX_NAME_LENGTH} characters, found ${name.length}`);
  }
  const [first] = name.split("-", 1);
  if (first === "." || first === "..") {
    throw refuse(`expected more than "${first}" before the first dash`);
  }
  const [wrong] = NOT_IN_NAMES.exec(name) ?? [];
  if (wrong !== undefined) {
    throw refuse(`expected letters, digits and "+-._?=" only, found ${quoteText(wrong)}`);
  }
}

/**
 * Returns whether a text is base names separated by single spaces. Several times faster than parsing them.
 *
 * @returns `false` also for a text of more than 64 KiB
 */
export function isBaseNames(text: string): boolean {
  if (text.length > SCRATCH.length) return false;
  const length = SCRATCH.write(text); // bytes are much faster to read than characters
  for (let start = 0; start < length; ) {
    const space = SCRATCH.indexOf(SPACE, start);
    const end = space < 0 || space > length ? length : space;
    if (!isBaseName(SCRATCH, start, end) || end + 1 === length) return false;
    start = end + 1;
  }
  return true;
}

/** Returns whether bytes from `start` to `end` are a base name in ASCII. */
export function isBaseName(bytes: Uint8Array, start: number, end: number): boolean {
  const dash = start + HASH_PART_CHARACTERS;
  if (dash >= end || bytes[dash] !== DASH) return false;
  for (let at = start; at < dash; at++) if (IN_HASH_PARTS[bytes[at]!] === 0) return false;
  return isStorePathName(bytes, dash + 1, end);
}

/** Returns whether bytes from `start` to `end` are the name of a store path in ASCII. */
export function isStorePathName(bytes: Uint8Array, start: number, end: number): boolean {
  if (end <= start || end - start > MAX_NAME_LENGTH) return false;
  let afterDots = start;
  while (afterDots < Math.min(start + 2, end) && bytes[afterDots] === DOT) afterDots += 1;
  if (afterDots > start && (afterDots === end || bytes[afterDots] === DASH)) return false;
  for (let at = start; at < end; at++) if (IN_NAMES[bytes[at]!] === 0) return false;
  return true;
}

/**
 * Checks a hash part.
 *
 * @throws StoreError `invalid_argument` if it is not 20 bytes long
 */
export function expectHashPart(bytes: Uint8Array): void {
  if (bytes.length === StorePath.HASH_PART_LENGTH) return;
  throw new StoreError(
    "invalid_argument",
    `Cannot use ${bytes.length} bytes as the hash part of a store path: expected ${StorePath.HASH_PART_LENGTH}`,
  );
}
