import { LENGTH, NOTIFY_RETRIEVE, WAKE_ID } from "./constants.ts";

/** Seconds that the kernel may keep what never changes: the longest time that fits. */
export const FOREVER = 0xffff_ffff;

/** What `stat` tells of a file. All times are one second after the epoch, as in a Nix store. */
export interface Attributes {
  readonly id: number;
  /** Type and permissions. */
  readonly mode: number;
  /** Length in bytes. */
  readonly size: number;
}

/** Writes the header of an answer, before `body` bytes. */
export function writeOutHeader(
  to: Buffer,
  unique: bigint,
  { body = 0, errno = 0 }: { body?: number; errno?: number },
): void {
  to.writeUInt32LE(LENGTH.outHeader + body, 0);
  to.writeInt32LE(-errno, 4);
  to.writeBigUInt64LE(unique, 8);
}

/** Returns the answer to INIT. */
export function initReply(reply: {
  major: number;
  minor: number;
  maxReadahead: number;
  flags: number;
}): Buffer {
  const out = Buffer.alloc(64);
  out.writeUInt32LE(reply.major, 0);
  out.writeUInt32LE(reply.minor, 4);
  out.writeUInt32LE(reply.maxReadahead, 8);
  out.writeUInt32LE(reply.flags, 12);
  out.writeUInt16LE(MAX_BACKGROUND, 16);
  out.writeUInt16LE(Math.floor(MAX_BACKGROUND * 0.75), 18); // from here on the kernel counts as congested
  out.writeUInt32LE(4096, 20); // nothing is written
  out.writeUInt32LE(1, 24); // granularity of times in nanoseconds
  out.writeUInt16LE(MAX_PAGES, 28);
  return out;
}

/** How many reads ahead of programs may be under way. */
const MAX_BACKGROUND = 64;
/** Longest read in pages of 4 KiB: the most that kernels allow. */
export const MAX_PAGES = 256;

/** Returns the answer to GETATTR. */
export function attributesReply(attributes: Attributes, validSeconds: number): Buffer {
  const out = Buffer.alloc(16 + LENGTH.attributes);
  writeUint64(out, validSeconds, 0);
  writeAttributes(out, attributes, 16);
  return out;
}

/** Returns the answer to LOOKUP for a name that exists. */
export function entryReply(attributes: Attributes, validSeconds: number): Buffer {
  const out = Buffer.alloc(LENGTH.entry);
  writeEntry(out, attributes, validSeconds, 0);
  return out;
}

/** Returns the answer to LOOKUP for a name that does not exist, which the kernel remembers for so many seconds. */
export function absentReply(validSeconds: number): Buffer {
  const out = Buffer.alloc(LENGTH.entry);
  writeUint64(out, validSeconds, 16);
  return out;
}

/** Returns the answer to OPENDIR. */
export function openReply(handle: number, flags: number): Buffer {
  const out = Buffer.alloc(16);
  writeUint64(out, handle, 0);
  out.writeUInt32LE(flags, 8);
  return out;
}

/** Returns the answer to STATFS: a full file system without a number of files, as the store has none that is known. */
export function statfsReply(): Buffer {
  const out = Buffer.alloc(80);
  out.writeUInt32LE(4096, 40); // block size
  out.writeUInt32LE(255, 44); // longest name
  out.writeUInt32LE(4096, 48); // fragment size
  return out;
}

/** Returns the answer to a request for the length of an extended attribute, or of the list of their names. */
export function xattrLengthReply(length: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt32LE(length, 0);
  return out;
}

/**
 * Returns a notification that asks for no bytes of the page cache of a file. The kernel answers with a request, which wakes
 * a thread that waits for one. Kernels take it for regular files alone, and only for those that they know.
 */
export function wakeNotification(): Buffer {
  const out = Buffer.alloc(LENGTH.outHeader + 32);
  out.writeUInt32LE(out.length, 0);
  out.writeInt32LE(NOTIFY_RETRIEVE, 4); // in place of an error; `unique` is zero in notifications
  out.writeUInt32LE(WAKE_ID, LENGTH.outHeader + 8);
  return out;
}

/** Fills the answer to READDIR or READDIRPLUS up to the length that was asked for. */
export class DirectoryListing {
  readonly #out: Buffer;
  readonly #isPlus: boolean;
  #filled = 0;

  /** @param out is filled; entries that do not fit are refused */
  constructor(out: Buffer, isPlus: boolean) {
    this.#out = out;
    this.#isPlus = isPlus;
  }

  /** The entries so far. */
  get bytes(): Buffer {
    return this.#out.subarray(0, this.#filled);
  }

  /** Tells whether there is room for an entry. */
  fits(nameLength: number): boolean {
    return this.#filled + this.#lengthOf(nameLength) <= this.#out.length;
  }

  /**
   * Adds an entry.
   *
   * @param next offset of the entry after it
   * @param validSeconds how long the kernel may keep it as looked up; `undefined` where it shall not
   */
  add(
    name: Uint8Array,
    attributes: Attributes,
    { next, validSeconds }: { next: number; validSeconds: number | undefined },
  ): void {
    const end = this.#filled + this.#lengthOf(name.length);
    let at = this.#filled;
    this.#out.fill(0, at, end);
    if (this.#isPlus) {
      if (validSeconds !== undefined) writeEntry(this.#out, attributes, validSeconds, at);
      at += LENGTH.entry;
    }
    writeUint64(this.#out, attributes.id, at);
    writeUint64(this.#out, next, at + 8);
    this.#out.writeUInt32LE(name.length, at + 16);
    this.#out.writeUInt32LE(attributes.mode >>> 12, at + 20);
    this.#out.set(name, at + LENGTH.dirent);
    this.#filled = end;
  }

  #lengthOf(nameLength: number): number {
    const length = (this.#isPlus ? LENGTH.entry : 0) + LENGTH.dirent + nameLength;
    return Math.ceil(length / 8) * 8;
  }
}

function writeEntry(out: Buffer, attributes: Attributes, validSeconds: number, at: number): void {
  writeUint64(out, attributes.id, at);
  writeUint64(out, validSeconds, at + 16); // the name
  writeUint64(out, FOREVER, at + 24); // the attributes: what has this inode has these
  writeAttributes(out, attributes, at + 40);
}

function writeAttributes(out: Buffer, { id, mode, size }: Attributes, at: number): void {
  writeUint64(out, id, at);
  writeUint64(out, size, at + 8);
  writeUint64(out, Math.ceil(size / 512), at + 16);
  for (const time of [24, 32, 40]) out.writeUInt32LE(1, at + time);
  out.writeUInt32LE(mode, at + 60);
  out.writeUInt32LE(1, at + 64); // links: of directories it means that sub-directories are not counted
  out.writeUInt32LE(4096, at + 80); // block size
}

function writeUint64(out: Buffer, value: number, at: number): void {
  out.writeUInt32LE(value % 0x1_0000_0000, at);
  out.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}
