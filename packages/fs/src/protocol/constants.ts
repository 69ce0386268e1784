/**
 * Numbers of the FUSE protocol, version 7, as `linux/fuse.h` of the kernel's user-space headers defines them, and the
 * errno values of Linux.
 */

/** The version that is spoken, and the oldest minor version of a kernel that is. Linux 4.18 speaks 7.27. */
export const VERSION = { major: 7, minor: 38, oldestMinor: 27 } as const;

/** Nodeid of the root. */
export const ROOT_ID = 1;

/** Nodeid of the file that only wakes the thread of the device, see `wakeNotification`. */
export const WAKE_ID = 2;

/** Operations. What is not listed is answered with `ENOSYS`. */
export const OPCODE = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  readlink: 5,
  symlink: 6,
  mknod: 8,
  mkdir: 9,
  unlink: 10,
  rmdir: 11,
  rename: 12,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  setxattr: 21,
  getxattr: 22,
  listxattr: 23,
  removexattr: 24,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  create: 35,
  interrupt: 36,
  destroy: 38,
  notifyReply: 41,
  batchForget: 42,
  fallocate: 43,
  readdirplus: 44,
  rename2: 45,
  tmpfile: 51,
} as const;

/** Flags of the INIT exchange. */
export const INIT_FLAG = {
  asyncRead: 0x1,
  readdirplus: 0x2000,
  asyncDirectIo: 0x8000,
  parallelDirectoryOperations: 0x40000,
  maxPages: 0x400000,
  cacheSymlinks: 0x800000,
} as const;

/** Flags of the answers to OPEN and OPENDIR. */
export const OPEN_FLAG = { keepCache: 0x2, cacheDirectory: 0x8 } as const;

/** The code of a notification that asks for a part of the page cache. */
export const NOTIFY_RETRIEVE = 5;

/** Errors, as Linux numbers them on all architectures that Node supports. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EACCES: 13,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EROFS: 30,
  ERANGE: 34,
  ENOSYS: 38,
  ENODATA: 61,
  EPROTO: 71,
  EBADF: 9,
  ESTALE: 116,
  ETIMEDOUT: 110,
} as const;

/** Types of files, in modes and in directory entries (`mode >> 12`). */
export const FILE_TYPE = { directory: 0o040000, file: 0o100000, symlink: 0o120000 } as const;

/** Lengths of messages and their parts, in bytes. */
export const LENGTH = {
  inHeader: 40,
  outHeader: 16,
  attributes: 88,
  entry: 128,
  dirent: 24,
} as const;
