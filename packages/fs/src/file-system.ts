import { LRUCache } from "lru-cache";
import { type ContentsAtHand, FileContents, isSmall, smallFile } from "./file-contents.ts";
import { FilesAhead, type Step, walkFiles } from "./files-ahead.ts";
import { type Inode, InodeTable } from "./inode-table.ts";
import type { Held, Need, RootPage, Supplies } from "./need.ts";
import { type Fetched, failure, type Outcome, reply, wait } from "./outcome.ts";
import { PackedDirectory, type PackedNode } from "./packed-directory.ts";
import { ERRNO, INIT_FLAG, OPEN_FLAG, ROOT_ID, VERSION, WAKE_ID } from "./protocol/constants.ts";
import {
  absentReply,
  attributesReply,
  DirectoryListing,
  entryReply,
  FOREVER,
  initReply,
  openReply,
  statfsReply,
  xattrLengthReply,
} from "./protocol/reply.ts";
import type { Request } from "./protocol/request.ts";
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

/** What a {@link FileSystem} is made of. */
interface FileSystemParts {
  readonly inodes?: InodeTable | undefined;
  /** Is asked for contents before they are fetched. Default: nothing is at hand. */
  readonly atHand?: ContentsAtHand | undefined;
}

/** Limits of what is kept to answer at once. */
const DIRECTORY_BYTES = 24 * 1024 * 1024;
const LONGEST_LISTING = 128 * 1024;
/** Limits of what is fetched ahead at once: bytes of small files, folders, and entries below these, counted twice. */
const FILES_AHEAD_BYTES = 2 * 1024 * 1024;
const FOLDERS_AHEAD = 256;
const FOLDERS_AHEAD_SIZE = 16_384;
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
  readonly #roots = new Map<number, RootListing>();
  readonly #filesAhead = new FilesAhead();
  readonly #listing = Buffer.alloc(LONGEST_LISTING);
  readonly #contents: FileContents;
  readonly #readsFilesAhead: boolean;
  #lastHandle = 0;
  #ahead: Need[] = [];

  constructor(
    options: FileSystemOptions,
    { inodes = new InodeTable(), atHand }: FileSystemParts = {},
  ) {
    this.#options = options;
    this.#inodes = inodes;
    const fetchAhead = (need: Need) => this.#ahead.push(need);
    this.#contents = new FileContents({ cacheBytes: options.cacheBytes, atHand, fetchAhead });
    this.#readsFilesAhead = atHand === undefined;
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
   * @returns what was fetched; contents are valid as long as the supply is, or until others are kept
   */
  keep(need: Need, supply: Supplies[Need["type"]]): Supplies[Need["type"]] {
    switch (need.type) {
      case "directory":
        this.#directories.set(need.key, new PackedDirectory(supply as Supplies["directory"]));
        return supply;
      case "list":
        this.#contents.keepList(need.key, supply as Supplies["list"]);
        return supply;
      case "file":
      case "chunk":
        return this.#contents.keep(need, supply as Held);
      case "path": // the kernel keeps it
      case "page": // belongs to one listing
        return supply;
    }
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
    const outcome = this.#contents.read(inode.id, node, { start, end }, fetched);
    if (isSmall(node) && this.#readsFilesAhead && !fetched.has(smallFile(node).key)) {
      this.#readFilesAhead(inode, outcome.type === "reply");
    }
    return outcome;
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
      if (node.size === 0 || !isSmall(node)) continue;
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

function directoryKey(digest: string): string {
  return `directory ${digest}`;
}
