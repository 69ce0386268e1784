import { ChunkList } from "@tvix/castore/chunk-list";
import { verifyStored } from "@tvix/castore/stored-contents";
import { LRUCache } from "lru-cache";
import { ContentRing } from "./content-ring.ts";
import { FilesAhead, type Step, walkFiles } from "./files-ahead.ts";
import { type Inode, InodeTable } from "./inode-table.ts";
import {
  type ContentsNeed,
  type Form,
  lengthOf,
  type Need,
  type RootPage,
  type Supplies,
} from "./need.ts";
import { PackedDirectory, type PackedNode } from "./packed-directory.ts";
import { ERRNO, INIT_FLAG, OPEN_FLAG, ROOT_ID, VERSION, WAKE_ID } from "./protocol/constants.ts";
import {
  absentReply,
  attributesReply,
  DirectoryListing,
  entryReply,
  FOREVER,
  initReply,
  MAX_PAGES,
  openReply,
  statfsReply,
  xattrLengthReply,
} from "./protocol/reply.ts";
import type { Request } from "./protocol/request.ts";
import { ReadPattern } from "./read-pattern.ts";
import { RootListing } from "./root-listing.ts";
import { xattrsOf } from "./xattrs.ts";

/** Options of {@link FileSystem}. */
export interface FileSystemOptions {
  /** Whether the root lists all store paths. Default: reading it is refused with `EPERM`. */
  readonly listRoot: boolean;
  /** Whether digests are shown as extended attributes. */
  readonly showXattr: boolean;
  /** How long the kernel remembers that a store path is there, or is not, in seconds. */
  readonly pathTtl: number;
  readonly absentTtl: number;
  /** Limit of the contents that are held for the next reads, in bytes. */
  readonly cacheBytes: number;
}

/** Contents that are at hand: verified, and read without waiting for a store. */
export interface ContentsAtHand {
  /**
   * Reads a file of one chunk, or a chunk.
   *
   * @param digest its 32 bytes as characters U+0000 to U+00FF
   * @param target takes the contents: as long as they are expected to be
   * @returns whether they were there
   */
  read(digest: string, target: Uint8Array): boolean;
}

/** What a {@link FileSystem} is made of. */
interface FileSystemParts {
  readonly inodes?: InodeTable | undefined;
  /** Is asked for contents before they are fetched. Default: nothing is at hand. */
  readonly atHand?: ContentsAtHand | undefined;
}

/** What became of a request. */
export type Outcome =
  | { readonly type: "reply"; readonly parts: readonly Uint8Array[] }
  | { readonly type: "error"; readonly errno: number }
  /** Nothing is to be answered. */
  | { readonly type: "silence" }
  /** The same request is handled again once these were met. */
  | { readonly type: "wait"; readonly needs: readonly Need[] };

/** What was fetched for a request, by the keys of its needs. */
export type Fetched = ReadonlyMap<string, Supplies[Need["type"]]>;

/** Files up to this length are fetched whole, without their list of chunks. */
const SMALL_FILE = 128 * 1024;

/** Limits of what is kept to answer at once. */
const DIRECTORY_BYTES = 24 * 1024 * 1024;
const LIST_BYTES = 8 * 1024 * 1024;
const LONGEST_LISTING = 128 * 1024;
/** How much is read ahead in a file, in bytes. */
const AHEAD = { first: 256 * 1024, most: 4 * 1024 * 1024, tolerance: 512 * 1024 };
/** Limits of what is fetched ahead at once: bytes of small files, folders, and entries below these, counted twice. */
const FILES_AHEAD_BYTES = 2 * 1024 * 1024;
const FOLDERS_AHEAD = 256;
const FOLDERS_AHEAD_SIZE = 16_384;
/** How much is held of files that are longer than half of what is held, in bytes. */
const RECENT_BYTES = 2 * 1024 * 1024;
/** Longest read of the kernel that is answered from contents at hand, in bytes: the longest that it makes. */
const LONGEST_READ = MAX_PAGES * 4096;

/** Stands for contents that do not match their digest. */
export const WRONG: unique symbol = Symbol("wrong");

const NONE: Fetched = new Map();
const SILENCE: Outcome = { type: "silence" };

/**
 * Answers requests of the kernel from what it holds, or tells what has to be fetched. Nothing in it waits: it serves one
 * request at a time, in the thread of the device.
 */
export class FileSystem {
  readonly #options: FileSystemOptions;
  readonly #inodes: InodeTable;
  readonly #directories = new LRUCache<string, PackedDirectory>({
    maxSize: DIRECTORY_BYTES,
    sizeCalculation: ({ byteLength }) => byteLength + 200,
  });
  readonly #lists = new LRUCache<string, ChunkList>({
    maxSize: LIST_BYTES,
    sizeCalculation: ({ bytes }) => bytes.length + 200,
  });
  readonly #contents: ContentRing;
  /**
   * Chunks at hand of files that are too long to be held: the next read may go on in one. They would push out everything else,
   * and decompressing into memory that the processor has in its cache saves a fifth of the time.
   */
  readonly #recent = new ContentRing(RECENT_BYTES);
  readonly #roots = new Map<number, RootListing>();
  readonly #bytesPattern = new ReadPattern(AHEAD);
  readonly #filesAhead = new FilesAhead();
  readonly #listing = Buffer.alloc(LONGEST_LISTING);
  readonly #atHand: ContentsAtHand | undefined;
  readonly #readBuffer: Buffer;
  #lastHandle = 0;
  #ahead: Need[] = [];

  constructor(
    options: FileSystemOptions,
    { inodes = new InodeTable(), atHand }: FileSystemParts = {},
  ) {
    this.#options = options;
    this.#inodes = inodes;
    this.#atHand = atHand;
    this.#readBuffer = Buffer.allocUnsafeSlow(atHand === undefined ? 0 : LONGEST_READ);
    this.#contents = new ContentRing(options.cacheBytes);
  }

  /** How many inodes there are, with the two that always are. */
  get inodes(): number {
    return this.#inodes.size;
  }

  /** Returns what is worth fetching before anybody asks for it, and forgets it. */
  takeAhead(): readonly Need[] {
    const ahead = this.#ahead;
    if (ahead.length > 0) this.#ahead = [];
    return ahead;
  }

  /**
   * Keeps what was fetched, within limits, for other requests. Bytes are copied.
   *
   * @param form that of contents
   * @returns what was fetched, contents as such, which are valid until others are kept; {@link WRONG} for those that do not
   *   match their digest
   */
  keep(
    need: Need,
    supply: Supplies[Need["type"]],
    form: Form | undefined,
  ): Supplies[Need["type"]] | typeof WRONG {
    switch (need.type) {
      case "directory":
        this.#directories.set(need.key, new PackedDirectory(supply as Supplies["directory"]));
        return supply;
      case "list":
        this.#lists.set(need.key, ChunkList.fromBytes((supply as Supplies["list"]).slice()));
        return supply;
      case "file":
      case "chunk":
        return this.#keepContents(need, supply as Uint8Array, form);
      case "path": // the kernel keeps it
      case "page": // belongs to one listing
        return supply;
    }
  }

  #keepContents(
    need: ContentsNeed,
    bytes: Uint8Array,
    form: Form | undefined,
  ): Uint8Array | typeof WRONG {
    const held = this.#contents.get(need.key);
    if (held !== undefined) return held;
    if (form !== "stored" && form !== "frame") {
      this.#contents.set(need.key, bytes);
      return bytes;
    }
    const digest = Buffer.from(need.type === "chunk" ? need.chunk : need.digest, "latin1");
    const stored = form === "frame" ? { frame: bytes } : { contents: bytes };
    let isRight: boolean | undefined;
    const take = (target: Uint8Array) => {
      isRight = verifyStored(stored, digest, target);
      return isRight;
    };
    const length = lengthOf(need);
    const kept = this.#contents.fill(need.key, length, take);
    if (kept !== undefined) return kept;
    if (isRight === false) return WRONG;
    const contents = new Uint8Array(length); // longer than what is held
    return take(contents) ? contents : WRONG;
  }

  /**
   * Handles a request.
   *
   * @param fetched what an earlier call for the same request waited for: it may be too large to be kept
   */
  handle(request: Request, fetched: Fetched = NONE): Outcome {
    switch (request.type) {
      case "init":
        return this.#init(request);
      case "forget":
        for (const { nodeid, count } of request.forgets) this.#inodes.forget(nodeid, count);
        return SILENCE;
      case "interrupt":
      case "notifyReply":
        return SILENCE;
      case "destroy":
        return reply();
      case "statfs":
        return reply(statfsReply());
      case "write":
        return failure(ERRNO.EROFS);
      // The kernel then opens files by itself: what never changes needs no handle, and its pages are always kept.
      case "open":
      case "unknown":
        return failure(ERRNO.ENOSYS);
      case "releasedir":
        this.#roots.delete(request.handle);
        return reply();
    }
    const inode = this.#inodes.get(request.nodeid);
    if (inode === undefined) return failure(ERRNO.ESTALE);
    switch (request.type) {
      case "lookup":
        return this.#lookup(inode, request.name, fetched);
      case "getattr":
        return reply(attributesReply(inode, FOREVER));
      case "readlink":
        return inode.node?.type === "symlink" ? reply(inode.node.target) : failure(ERRNO.EINVAL);
      case "opendir":
        return this.#opendir(inode);
      case "readdir":
      case "readdirplus":
        return this.#readdir(inode, request, fetched);
      case "read":
        return this.#read(inode, request, fetched);
      case "getxattr":
      case "listxattr":
        return this.#xattr(inode, request);
    }
  }

  #init(request: Request & { type: "init" }): Outcome {
    const { major, minor, maxReadahead } = request;
    const version = { major: VERSION.major, minor: Math.min(minor, VERSION.minor) };
    if (major > VERSION.major) {
      return reply(initReply({ ...version, minor: VERSION.minor, maxReadahead: 0, flags: 0 }));
    }
    if (major < VERSION.major || minor < VERSION.oldestMinor) return failure(ERRNO.EPROTO);
    const wanted = Object.values(INIT_FLAG).reduce((all, flag) => all | flag, 0);
    const flags = (request.flags & wanted) >>> 0;
    return reply(initReply({ ...version, maxReadahead, flags }));
  }

  #lookup(parent: Inode, name: Buffer, fetched: Fetched): Outcome {
    if (parent.id === ROOT_ID) return this.#lookupPath(parent, name, fetched);
    const directory = this.#directoryOf(parent, fetched);
    if (!(directory instanceof PackedDirectory)) return directory;
    const index = directory.indexOf(name);
    if (index < 0) return reply(absentReply(FOREVER));
    const inode = this.#inodes.of(parent, name, directory.nodeAt(index), index);
    this.#inodes.remember(inode);
    return reply(entryReply(inode, FOREVER));
  }

  /** Looks up a store path. */
  #lookupPath(root: Inode, name: Buffer, fetched: Fetched): Outcome {
    const { pathTtl, absentTtl } = this.#options;
    if (name.equals(WAKE)) return reply(entryReply(this.#inodes.get(WAKE_ID)!, FOREVER));
    const baseName = name.toString("latin1");
    const key = `path ${baseName}`;
    if (!fetched.has(key)) return wait({ type: "path", key, baseName });
    const found = fetched.get(key) as Supplies["path"];
    if (found === undefined) return reply(absentReply(absentTtl));
    const inode = this.#inodes.of(root, name, new PackedDirectory(found).nodeAt(0), -1);
    this.#inodes.remember(inode);
    return reply(entryReply(inode, pathTtl));
  }

  #opendir(inode: Inode): Outcome {
    if (inode.id !== ROOT_ID) {
      return inode.node?.type === "directory"
        ? reply(openReply(0, OPEN_FLAG.keepCache | OPEN_FLAG.cacheDirectory))
        : failure(ERRNO.ENOTDIR);
    }
    if (!this.#options.listRoot) return failure(ERRNO.EPERM);
    this.#lastHandle += 1;
    this.#roots.set(this.#lastHandle, new RootListing());
    return reply(openReply(this.#lastHandle, 0));
  }

  #readdir(
    inode: Inode,
    request: Request & { type: "readdir" | "readdirplus" },
    fetched: Fetched,
  ): Outcome {
    const { offset, size, handle } = request;
    const isPlus = request.type === "readdirplus";
    const listing = new DirectoryListing(
      this.#listing.subarray(0, Math.min(size, LONGEST_LISTING)),
      isPlus,
    );
    let at = Math.max(offset - 2, 0);
    const begin = this.#partOf(inode, handle, at, fetched);
    if ("type" in begin) return begin;
    if (offset === 0 && inode.id !== ROOT_ID) this.#readFoldersAhead(begin.entries);
    const parent = this.#inodes.get(inode.parent) ?? inode;
    for (const [i, name] of [DOT, DOT_DOT].entries()) {
      if (i < offset || !listing.fits(name.length)) continue;
      listing.add(name, i === 0 ? inode : parent, { next: i + 1, validSeconds: undefined });
    }
    for (let part: FolderPart | Outcome = begin; ; ) {
      if ("type" in part) return reply(listing.bytes); // the next request asks for the rest
      const { entries, first, isLast, validSeconds } = part;
      for (; at < first + entries.length; at++) {
        const name = entries.nameAt(at - first);
        if (!listing.fits(name.length)) return reply(listing.bytes);
        const index = inode.id === ROOT_ID ? -1 : at;
        const child = this.#inodes.of(inode, name, entries.nodeAt(at - first), index);
        if (isPlus) this.#inodes.remember(child);
        listing.add(name, child, { next: at + 3, validSeconds });
      }
      if (isLast) return reply(listing.bytes);
      part = this.#partOf(inode, handle, at, fetched);
    }
  }

  /** Returns the part of a folder that has the entry of that index, or is behind it; an outcome if there is none now. */
  #partOf(inode: Inode, handle: number, at: number, fetched: Fetched): FolderPart | Outcome {
    if (inode.id !== ROOT_ID) {
      const entries = this.#directoryOf(inode, fetched);
      if (!(entries instanceof PackedDirectory)) return entries;
      return { entries, first: 0, isLast: true, validSeconds: FOREVER };
    }
    const root = this.#roots.get(handle);
    if (root === undefined) return failure(ERRNO.EBADF);
    const key = `page ${handle} ${root.pageOf(at)}`;
    if (fetched.has(key)) root.use(root.pageOf(at), fetched.get(key) as RootPage);
    const page = root.page(at);
    if (page === undefined) return wait({ type: "page", key, after: root.cursorOf(at) });
    return { ...page, validSeconds: this.#options.pathTtl };
  }

  #read(inode: Inode, request: Request & { type: "read" }, fetched: Fetched): Outcome {
    const { node } = inode;
    if (inode.id === WAKE_ID) return reply();
    if (node?.type !== "file") {
      return failure(node?.type === "symlink" ? ERRNO.EINVAL : ERRNO.EISDIR);
    }
    const start = Math.min(request.offset, node.size);
    const end = Math.min(start + request.size, node.size);
    if (start === end) return reply();
    return node.size <= SMALL_FILE
      ? this.#readSmall(inode, node, { start, end }, fetched)
      : this.#readChunks(inode, node, { start, end }, fetched);
  }

  #readSmall(inode: Inode, node: FileNode, { start, end }: Range, fetched: Fetched): Outcome {
    const need = smallFile(node);
    const contents = (fetched.get(need.key) as Uint8Array) ?? this.#contents.get(need.key);
    if (contents === undefined) {
      const part = { key: need.key, digest: node.digest, length: node.size };
      const read = this.#readAtHand([part], { start, end }, this.#contents);
      if (read !== undefined) return reply(read);
    }
    if (!fetched.has(need.key) && this.#atHand === undefined) {
      this.#readFilesAhead(inode, contents !== undefined);
    }
    if (contents === undefined) return wait(need);
    return reply(contents.subarray(start, end));
  }

  /** Fetches the small files behind one in its tree, where they are read one after the other. */
  #readFilesAhead({ parent, index }: Inode, isHeld: boolean): void {
    if (index < 0) return;
    const count = this.#filesAhead.note(parent, index, isHeld);
    if (count === 0) return;
    const enter = ({ digest }: { digest: string }) => this.#directories.peek(directoryKey(digest));
    const steps: Step[] = [];
    for (let id = parent, next = index + 1; ; ) {
      const folder = this.#inodes.get(id);
      const entries = folder?.node?.type === "directory" ? enter(folder.node) : undefined;
      if (folder === undefined || entries === undefined) break;
      steps.push({ entries, next });
      if (folder.index < 0) break;
      [id, next] = [folder.parent, folder.index + 1];
    }
    let [files, bytes] = [0, 0];
    for (const node of walkFiles(steps, enter)) {
      if (node.size === 0 || node.size > SMALL_FILE) continue;
      bytes += node.size;
      if (bytes > FILES_AHEAD_BYTES || files === count) break;
      const need = smallFile(node);
      if (this.#contents.has(need.key)) continue;
      this.#ahead.push(need);
      files += 1;
    }
    this.#filesAhead.begin(files);
  }

  /** Fetches the folders in one that is being listed: whoever lists it may well go on with them. */
  #readFoldersAhead(entries: PackedDirectory): void {
    let [folders, size] = [0, 0];
    for (let i = 0; i < entries.length && folders < FOLDERS_AHEAD; i++) {
      const stated = entries.folderSizeAt(i);
      if (stated === undefined) continue;
      size += stated;
      if (size > FOLDERS_AHEAD_SIZE) return;
      const node = entries.nodeAt(i) as PackedNode & { type: "directory" };
      const key = directoryKey(node.digest);
      if (this.#directories.has(key)) continue;
      this.#ahead.push({ type: "directory", key, digest: node.digest });
      folders += 1;
    }
  }

  #readChunks(inode: Inode, node: FileNode, { start, end }: Range, fetched: Fetched): Outcome {
    const { digest, size } = node;
    const key = `list ${digest}`;
    const packed = fetched.get(key) as Uint8Array | undefined;
    const list = packed ? ChunkList.fromBytes(packed) : this.#lists.get(key);
    if (list === undefined) return wait({ type: "list", key, digest, size });
    const first = list.indexAt(start);
    const origin = list.offsetAt(first);
    const range = { start: start - origin, end: end - origin };
    const ring = size > this.#options.cacheBytes / 2 ? this.#recent : this.#contents;
    // What was fetched is valid until something is written into a ring.
    const isFetched = fetched.size > (packed === undefined ? 0 : 1);
    const read = isFetched
      ? undefined
      : this.#readAtHand(chunksFrom(digest, list, first), range, ring);
    if (read !== undefined) return reply(read);
    const parts: Uint8Array[] = [];
    const needs: Need[] = [];
    let offset = origin;
    let index = first;
    for (; index < list.length && offset < end; index++) {
      const need = chunkOf(digest, list, index, offset);
      const chunk = (fetched.get(need.key) as Uint8Array) ?? this.#contents.get(need.key);
      if (chunk === undefined) needs.push(need);
      else parts.push(chunk.subarray(Math.max(start - offset, 0), end - offset));
      offset += need.length;
    }
    if (fetched.size === 0) {
      const ahead = this.#bytesPattern.note(inode.id, start, end);
      for (; ahead && index < list.length && offset < ahead.to; index++) {
        const need = chunkOf(digest, list, index, offset);
        if (!this.#contents.has(need.key)) this.#ahead.push(need);
        offset += need.length;
      }
    }
    return needs.length > 0 ? { type: "wait", needs } : reply(...parts);
  }

  /**
   * Reads a range of some contents in a row that are at hand, up to its end; `undefined` if one of them is not. It is valid until
   * the next request.
   *
   * @param range begins in the first of them
   * @param ring holds those that are read in part
   */
  #readAtHand(
    row: Iterable<Part>,
    { start, end }: Range,
    ring: ContentRing,
  ): Uint8Array | undefined {
    const atHand = this.#atHand;
    if (atHand === undefined || end - start > this.#readBuffer.length) return undefined;
    const out = this.#readBuffer.subarray(0, end - start);
    let offset = 0;
    for (const { key, digest, length } of row) {
      const [from, to] = [Math.max(start - offset, 0), Math.min(end - offset, length)];
      const target = out.subarray(Math.max(offset - start, 0), offset + to - start);
      const held = this.#recent.get(key) ?? this.#contents.get(key);
      if (held === undefined && target.length === length) {
        if (!atHand.read(digest, target)) return undefined;
      } else {
        const read = (target: Uint8Array) => atHand.read(digest, target);
        const contents =
          held ?? ring.fill(key, length, read) ?? this.#contents.fill(key, length, read);
        if (contents === undefined) return undefined;
        target.set(contents.subarray(from, to));
      }
      offset += length;
      if (offset >= end) return out;
    }
    return undefined;
  }

  #xattr(inode: Inode, request: Request & { type: "getxattr" | "listxattr" }): Outcome {
    if (!this.#options.showXattr) return failure(ERRNO.ENOSYS); // the kernel then asks no more
    const xattrs = xattrsOf(inode.node);
    const value =
      request.type === "listxattr"
        ? Buffer.from(Array.from(xattrs.keys(), (name) => `${name}\0`).join(""))
        : xattrs.get(request.name.toString("latin1"));
    if (value === undefined) return failure(ERRNO.ENODATA);
    if (request.size === 0) return reply(xattrLengthReply(value.length));
    return value.length <= request.size ? reply(value) : failure(ERRNO.ERANGE);
  }

  /** Returns the entries of a folder, or the outcome where they cannot be had now. */
  #directoryOf({ node }: Inode, fetched: Fetched): PackedDirectory | Outcome {
    if (node?.type !== "directory") return failure(ERRNO.ENOTDIR);
    const key = directoryKey(node.digest);
    const kept = this.#directories.get(key);
    if (kept !== undefined) return kept;
    const packed = fetched.get(key) as Supplies["directory"] | undefined;
    if (packed !== undefined) return new PackedDirectory(packed);
    return wait({ type: "directory", key, digest: node.digest });
  }
}

type FileNode = PackedNode & { type: "file" };

interface Range {
  readonly start: number;
  readonly end: number;
}

/** A file of one chunk, or a chunk. */
interface Part {
  readonly key: string;
  readonly digest: string;
  readonly length: number;
}

interface FolderPart {
  readonly entries: PackedDirectory;
  /** Index of the first of them in the folder. */
  readonly first: number;
  readonly isLast: boolean;
  /** How long the kernel may keep them as looked up. */
  readonly validSeconds: number;
}

/** Name of an empty file in the root, which no listing has. */
export const WAKE_NAME = ".tvix-store-wake";

const WAKE: Buffer = Buffer.from(WAKE_NAME);
const DOT = Buffer.from(".");
const DOT_DOT = Buffer.from("..");

function reply(...parts: readonly Uint8Array[]): Outcome {
  return { type: "reply", parts };
}

function failure(errno: number): Outcome {
  return { type: "error", errno };
}

function wait(need: Need): Outcome {
  return { type: "wait", needs: [need] };
}

function directoryKey(digest: string): string {
  return `directory ${digest}`;
}

function smallFile({ digest, size }: FileNode): Need {
  return { type: "file", key: `file ${digest}${size}`, digest, size };
}

function chunkOf(
  digest: string,
  list: ChunkList,
  index: number,
  offset: number,
): Need & { type: "chunk" } {
  const at = index * ChunkList.ENTRY_BYTES;
  const chunk = Buffer.from(list.bytes.buffer, list.bytes.byteOffset + at, 32).toString("latin1");
  const length = list.sizeAt(index);
  return { type: "chunk", key: `chunk ${chunk}`, digest, chunk, offset, length };
}

/** Returns the chunks of a blob from one on. */
function* chunksFrom(digest: string, list: ChunkList, first: number): Generator<Part> {
  for (let index = first; index < list.length; index++) {
    const { key, chunk, length } = chunkOf(digest, list, index, 0);
    yield { key, digest: chunk, length };
  }
}
