/**
 * Reads PathInfos from their canonical encoding, the one in which they are stored and sent: fields in number order,
 * default values left out. That takes a small part of the time that reading any encoding takes. What is encoded in
 * another way, or breaks a rule, is left to `convert.ts`.
 *
 * Format: Protocol Buffers, "Encoding", for the messages in pathinfo.proto and castore.proto.
 */
import { B3Digest, type Node, symlinkTarget } from "@tvix/castore";
import * as pb from "@tvix/proto/store";
import { type ContentAddress, textContentAddress } from "./nix/content-address.ts";
import { DIGEST_LENGTH, type HashAlgorithm, nixHash } from "./nix/nix-hash.ts";
import { decodeNixbase32Groups } from "./nix/nixbase32.ts";
import type { Signature } from "./nix/signature.ts";
import { isBaseName, isStorePathName, StorePath } from "./nix/store-path.ts";
import type { PathInfo } from "./pathinfo.ts";

/** Content addresses by their type on the wire, which is the index. */
export const CA_TYPES: readonly (readonly [
  pb.NARInfo_CA_Hash,
  ContentAddress["kind"],
  HashAlgorithm,
])[] = [
  [pb.NARInfo_CA_Hash.NAR_SHA256, "nar", "sha256"],
  [pb.NARInfo_CA_Hash.NAR_SHA1, "nar", "sha1"],
  [pb.NARInfo_CA_Hash.NAR_SHA512, "nar", "sha512"],
  [pb.NARInfo_CA_Hash.NAR_MD5, "nar", "md5"],
  [pb.NARInfo_CA_Hash.TEXT_SHA256, "text", "sha256"],
  [pb.NARInfo_CA_Hash.FLAT_SHA1, "flat", "sha1"],
  [pb.NARInfo_CA_Hash.FLAT_MD5, "flat", "md5"],
  [pb.NARInfo_CA_Hash.FLAT_SHA256, "flat", "sha256"],
  [pb.NARInfo_CA_Hash.FLAT_SHA512, "flat", "sha512"],
];

const { HASH_PART_LENGTH } = StorePath;
/** What stands before the name in a base name: the hash part in nixbase32, and a dash. */
const BEFORE_NAME = 33;
const SHA256_LENGTH = 32;
const SIGNATURE_LENGTH = 64;
const MAX_TARGET_LENGTH = 4095;

/** The tag of a field that is bytes, text or a message; of a number. */
const bytesTag = (field: number): number => (field << 3) | 2;
const numberTag = (field: number): number => field << 3;

const NODE = bytesTag(1);
const REFERENCE = bytesTag(2);
const NARINFO = bytesTag(3);

const DIRECTORY_NODE = bytesTag(1);
const FILE_NODE = bytesTag(2);
const SYMLINK_NODE = bytesTag(3);
const NODE_NAME = bytesTag(1);
const NODE_DIGEST = bytesTag(2);
const NODE_SIZE = numberTag(3);
const NODE_EXECUTABLE = numberTag(4);

const NAR_SIZE = numberTag(1);
const NAR_SHA256 = bytesTag(2);
const SIGNATURE = bytesTag(3);
const REFERENCE_NAME = bytesTag(4);
const DERIVER = bytesTag(5);
const CA = bytesTag(6);

/** The fields of a signature, and of a deriver. */
const NAME = bytesTag(1);
const DATA = bytesTag(2);

const CA_TYPE = numberTag(1);
const CA_DIGEST = bytesTag(2);

/** Longest number that is read here, in bytes: larger ones do not fit into a number of JavaScript. */
const MAX_NUMBER_LENGTH = 7;

const SPACE = 0x20;
const COLON = 0x3a;
const DELETE = 0x7f;

/** Returns some of the bytes of an encoded PathInfo, without a copy. */
type Part = (at: number, length: number) => Uint8Array;

/** A PathInfo that knows its encoding. A copy of its properties does not, and may have others. */
class ReadPathInfo implements PathInfo {
  readonly storePath: StorePath;
  readonly node: Node;
  readonly references: readonly StorePath[];
  readonly narSize: bigint;
  readonly narSha256: Uint8Array;
  readonly signatures: readonly Signature[];
  declare readonly deriver?: StorePath;
  declare readonly ca?: ContentAddress;
  readonly #encoding: Uint8Array;

  /** @param memory holds the encoding, and behind it the hash part of the store path */
  constructor(scan: Scan, memory: Buffer<ArrayBuffer>, length: number) {
    // Texts are cut from one text, as it takes longer to begin one than to make it.
    const text = memory.toString("latin1", 0, length);
    const { buffer, byteOffset } = memory;
    const part: Part = (at, length) => new Uint8Array(buffer, byteOffset + at, length);
    this.storePath = StorePath.ofValid(
      part(length, HASH_PART_LENGTH),
      text.slice(scan.nameStart + BEFORE_NAME, scan.nameEnd),
    );
    this.node = readNode(scan, part);
    this.references = readReferences(scan, part, text);
    this.narSize = BigInt(scan.narSize);
    this.narSha256 = part(scan.narSha256, SHA256_LENGTH);
    this.signatures = readSignatures(scan, part, text);
    if (scan.deriverStart > 0) {
      const hashPart = part(scan.deriverHash, HASH_PART_LENGTH);
      this.deriver = StorePath.ofValid(hashPart, text.slice(scan.deriverStart, scan.deriverEnd));
    }
    if (scan.caDigest > 0) {
      const [, kind, algorithm] = CA_TYPES[scan.caType]!;
      const hash = nixHash(algorithm, part(scan.caDigest, DIGEST_LENGTH[algorithm]));
      this.ca = kind === "text" ? textContentAddress(hash) : { kind, hash };
    }
    this.#encoding = part(0, length);
  }

  static encodingOf(pathInfo: PathInfo): Uint8Array | undefined {
    return #encoding in pathInfo ? pathInfo.#encoding : undefined;
  }
}

/** Returns the canonical encoding that a PathInfo was read from; `undefined` for one that was made otherwise. */
export function encodingOf(pathInfo: PathInfo): Uint8Array | undefined {
  return ReadPathInfo.encodingOf(pathInfo);
}

/**
 * Reads a PathInfo, of which it keeps a copy.
 *
 * @returns `undefined` for bytes that are not the canonical encoding of a valid PathInfo, and for some that are
 */
export function readCanonicalPathInfo(bytes: Uint8Array): PathInfo | undefined {
  if (!SCAN.run(bytes)) return undefined;
  // One piece of memory, from the pool where it is small, for the encoding and the hash part that is not in it.
  const memory = Buffer.allocUnsafe(bytes.length + HASH_PART_LENGTH);
  memory.set(bytes);
  decodeNixbase32Groups(memory, SCAN.nameStart, memory, bytes.length, HASH_PART_LENGTH);
  return new ReadPathInfo(SCAN, memory, bytes.length);
}

/**
 * Returns whether bytes are the canonical encoding of a valid PathInfo, for a store path with that hash part. `false`
 * also for some that are.
 *
 * @param hashPart default: any
 */
export function isCanonicalPathInfo(bytes: Uint8Array, hashPart?: Uint8Array): boolean {
  return SCAN.run(bytes) && (hashPart === undefined || SCAN.hasHashPart(bytes, hashPart));
}

/** Where the parts of an encoded PathInfo are. 0 stands for what is not there. */
class Scan {
  nameStart = 0;
  nameEnd = 0;
  nodeType = 0;
  nodeSize = 0;
  executable = false;
  /** Of the digest, or of the target. */
  nodeDataStart = 0;
  nodeDataEnd = 0;
  narSize = 0;
  narSha256 = 0;
  deriverStart = 0;
  deriverEnd = 0;
  deriverHash = 0;
  caType = 0;
  caDigest = 0;
  /** The hash part of each reference; start and end of its name. The arrays may be longer: to shorten one takes a call of V8. */
  referenceCount = 0;
  readonly referenceHashes: number[] = [];
  readonly references: number[] = [];
  /** For each signature start and end of its name, and its data. Likewise. */
  signatureCount = 0;
  readonly signatures: number[] = [];

  readonly #scratch = new Uint8Array(HASH_PART_LENGTH);
  #bytes: Uint8Array = this.#scratch;
  #at = 0;
  /** What was read last: a number, or the end of something with a length. */
  #value = 0;

  /** Finds the parts of a PathInfo. Returns `false` for anything that is not canonical or not valid. */
  run(bytes: Uint8Array): boolean {
    this.#bytes = bytes;
    this.#at = 0;
    this.referenceCount = 0;
    this.signatureCount = 0;
    const { length } = bytes;
    if (!this.#bytesField(NODE, length) || !this.#node(this.#value)) return false;
    while (this.#bytesField(REFERENCE, length)) {
      if (this.#value - this.#at !== HASH_PART_LENGTH) return false;
      this.referenceHashes[this.referenceCount++] = this.#at;
      this.#at = this.#value;
    }
    return (
      this.#bytesField(NARINFO, length) && this.#value === length && this.#narInfo(this.#value)
    );
  }

  hasHashPart(bytes: Uint8Array, hashPart: Uint8Array): boolean {
    decodeNixbase32Groups(bytes, this.nameStart, this.#scratch, 0, HASH_PART_LENGTH);
    return isSame(this.#scratch, 0, hashPart, 0, HASH_PART_LENGTH);
  }

  #node(end: number): boolean {
    const type = this.#bytes[this.#at]!;
    if (type !== DIRECTORY_NODE && type !== FILE_NODE && type !== SYMLINK_NODE) return false;
    this.nodeType = type;
    if (!this.#bytesField(type, end) || this.#value !== end) return false;
    if (!this.#bytesField(NODE_NAME, end)) return false;
    this.nameStart = this.#at;
    this.nameEnd = this.#value;
    this.#at = this.#value;
    if (!isBaseName(this.#bytes, this.nameStart, this.nameEnd)) return false;
    if (!this.#bytesField(NODE_DIGEST, end)) return false;
    this.nodeDataStart = this.#at;
    this.nodeDataEnd = this.#value;
    this.#at = this.#value;
    const length = this.nodeDataEnd - this.nodeDataStart;
    if (type === SYMLINK_NODE) {
      const target = this.#bytes.subarray(this.nodeDataStart, this.nodeDataEnd);
      return this.#at === end && length > 0 && length <= MAX_TARGET_LENGTH && !target.includes(0);
    }
    if (length !== B3Digest.LENGTH) return false;
    this.nodeSize = this.#numberField(NODE_SIZE, end);
    const executable = type === FILE_NODE ? this.#numberField(NODE_EXECUTABLE, end) : 0;
    this.executable = executable === 1;
    return executable <= 1 && this.#at === end;
  }

  #narInfo(end: number): boolean {
    this.narSize = this.#numberField(NAR_SIZE, end);
    if (!this.#fixedField(NAR_SHA256, SHA256_LENGTH, end)) return false;
    this.narSha256 = this.#at - SHA256_LENGTH;
    while (this.#bytesField(SIGNATURE, end)) if (!this.#signature(this.#value)) return false;
    for (let i = 0; i < this.referenceCount; i++) if (!this.#referenceName(i, end)) return false;
    this.deriverStart = 0;
    if (this.#bytesField(DERIVER, end) && !this.#deriver(this.#value)) return false;
    this.caDigest = 0;
    if (this.#bytesField(CA, end) && !this.#ca(this.#value)) return false;
    return this.#at === end;
  }

  #signature(end: number): boolean {
    if (!this.#bytesField(NAME, end)) return false;
    for (let at = this.#at; at < this.#value; at++) {
      const byte = this.#bytes[at]!;
      if (byte <= SPACE || byte === COLON || byte >= DELETE) return false;
    }
    if (this.#at === this.#value) return false;
    const i = 3 * this.signatureCount++;
    this.signatures[i] = this.#at;
    this.signatures[i + 1] = this.#value;
    this.#at = this.#value;
    if (!this.#fixedField(DATA, SIGNATURE_LENGTH, end)) return false;
    this.signatures[i + 2] = this.#at - SIGNATURE_LENGTH;
    return this.#at === end;
  }

  #referenceName(i: number, messageEnd: number): boolean {
    if (!this.#bytesField(REFERENCE_NAME, messageEnd)) return false;
    const bytes = this.#bytes;
    const start = this.#at;
    const end = this.#value;
    if (!isBaseName(bytes, start, end)) return false;
    decodeNixbase32Groups(bytes, start, this.#scratch, 0, HASH_PART_LENGTH);
    const hash = this.referenceHashes[i]!;
    if (!isSame(this.#scratch, 0, bytes, hash, HASH_PART_LENGTH)) return false;
    this.references[2 * i] = start + BEFORE_NAME;
    this.references[2 * i + 1] = end;
    this.#at = end;
    return true;
  }

  #deriver(end: number): boolean {
    if (!this.#bytesField(NAME, end)) return false;
    this.deriverStart = this.#at;
    this.deriverEnd = this.#value;
    this.#at = this.#value;
    if (!isStorePathName(this.#bytes, this.deriverStart, this.deriverEnd)) return false;
    if (!this.#fixedField(DATA, HASH_PART_LENGTH, end)) return false;
    this.deriverHash = this.#at - HASH_PART_LENGTH;
    return this.#at === end;
  }

  #ca(end: number): boolean {
    this.caType = this.#numberField(CA_TYPE, end);
    const [, , algorithm] = CA_TYPES[this.caType] ?? [];
    if (algorithm === undefined) return false;
    const length = DIGEST_LENGTH[algorithm];
    if (!this.#fixedField(CA_DIGEST, length, end)) return false;
    this.caDigest = this.#at - length;
    return this.#at === end;
  }

  /** Reads the tag and the length of a field, if it comes next and ends within the message: its end is the value. */
  #bytesField(tag: number, messageEnd: number): boolean {
    const start = this.#at;
    if (start >= messageEnd || this.#bytes[start] !== tag) return false;
    this.#at = start + 1;
    if (this.#number(messageEnd) && this.#at + this.#value <= messageEnd) {
      this.#value += this.#at;
      return true;
    }
    this.#at = start;
    return false;
  }

  /** Reads a field of that length, if it comes next. */
  #fixedField(tag: number, length: number, messageEnd: number): boolean {
    if (!this.#bytesField(tag, messageEnd) || this.#value - this.#at !== length) return false;
    this.#at = this.#value;
    return true;
  }

  /** Reads a field that is a number, if it comes next; 0 if it does not, for which no field stands. */
  #numberField(tag: number, messageEnd: number): number {
    const start = this.#at;
    if (start >= messageEnd || this.#bytes[start] !== tag) return 0;
    this.#at = start + 1;
    if (this.#number(messageEnd) && this.#value > 0) return this.#value;
    this.#at = start;
    return 0;
  }

  /** Reads a number in its shortest encoding, of at most 49 bits. */
  #number(end: number): boolean {
    let value = 0;
    let factor = 1;
    const limit = Math.min(end, this.#at + MAX_NUMBER_LENGTH);
    for (let at = this.#at; at < limit; at++) {
      const byte = this.#bytes[at]!;
      if (byte < 0x80) {
        if (byte === 0 && factor > 1) return false;
        this.#value = value + byte * factor;
        this.#at = at + 1;
        return true;
      }
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
    }
    return false;
  }
}

/** The one that all calls use, none of which waits for anything. */
const SCAN = new Scan();

function readNode(scan: Scan, part: Part): Node {
  const data = part(scan.nodeDataStart, scan.nodeDataEnd - scan.nodeDataStart);
  if (scan.nodeType === SYMLINK_NODE) return { type: "symlink", target: symlinkTarget(data) };
  const digest = B3Digest.fromBytes(data);
  const size = BigInt(scan.nodeSize);
  if (scan.nodeType === DIRECTORY_NODE) return { type: "directory", digest, size };
  return { type: "file", digest, size, executable: scan.executable };
}

function readReferences(scan: Scan, part: Part, text: string): StorePath[] {
  const read: StorePath[] = [];
  for (let i = 0; i < scan.referenceCount; i++) {
    const name = text.slice(scan.references[2 * i], scan.references[2 * i + 1]);
    read.push(StorePath.ofValid(part(scan.referenceHashes[i]!, HASH_PART_LENGTH), name));
  }
  return read;
}

function readSignatures(
  { signatureCount, signatures }: Scan,
  part: Part,
  text: string,
): Signature[] {
  const read: Signature[] = [];
  for (let i = 0; i < 3 * signatureCount; i += 3) {
    const name = text.slice(signatures[i], signatures[i + 1]);
    read.push({ name, data: part(signatures[i + 2]!, SIGNATURE_LENGTH) });
  }
  return read;
}

function isSame(
  a: Uint8Array,
  aStart: number,
  b: Uint8Array,
  bStart: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) if (a[aStart + i] !== b[bStart + i]) return false;
  return true;
}
