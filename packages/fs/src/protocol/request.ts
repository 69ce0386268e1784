import { LENGTH, OPCODE } from "./constants.ts";

/** What is common to all requests. */
interface Header {
  /** The number that the answer repeats. */
  readonly unique: bigint;
  /** The inode that the request is about. Above 2^53 it is not exact: no such inode exists. */
  readonly nodeid: number;
}

/** A request of the kernel, decoded. */
export type Request = Header &
  (
    | { readonly type: "lookup"; readonly name: Buffer }
    | { readonly type: "forget"; readonly forgets: readonly Forget[] }
    | { readonly type: "getattr" | "readlink" | "statfs" | "open" | "opendir" | "destroy" }
    | { readonly type: "read"; readonly offset: number; readonly size: number }
    | {
        readonly type: "readdir" | "readdirplus";
        readonly handle: number;
        readonly offset: number;
        readonly size: number;
      }
    | { readonly type: "releasedir"; readonly handle: number }
    | { readonly type: "getxattr"; readonly name: Buffer; readonly size: number }
    | { readonly type: "listxattr"; readonly size: number }
    | {
        readonly type: "init";
        readonly major: number;
        readonly minor: number;
        readonly maxReadahead: number;
        readonly flags: number;
      }
    | { readonly type: "interrupt"; readonly interrupted: bigint }
    | { readonly type: "notifyReply" }
    /** Would change the file system. */
    | { readonly type: "write" }
    /** An operation that this file system does not have. */
    | { readonly type: "unknown"; readonly opcode: number }
  );

/** How many references to an inode the kernel drops. */
interface Forget {
  readonly nodeid: number;
  readonly count: number;
}

/** What a message is that breaks the protocol: `unique` is known if its header is whole. */
export interface Malformed {
  readonly type: "malformed";
  readonly unique: bigint | undefined;
}

const WRITES: ReadonlySet<number> = new Set([
  OPCODE.setattr,
  OPCODE.symlink,
  OPCODE.mknod,
  OPCODE.mkdir,
  OPCODE.unlink,
  OPCODE.rmdir,
  OPCODE.rename,
  OPCODE.link,
  OPCODE.write,
  OPCODE.setxattr,
  OPCODE.removexattr,
  OPCODE.create,
  OPCODE.fallocate,
  OPCODE.rename2,
  OPCODE.tmpfile,
]);

const READ_IN_LENGTH = 40;

/**
 * Decodes one request. Names are parts of the message, which therefore stays unchanged for as long as they are used.
 * Never throws, whatever the message is.
 */
export function decodeRequest(message: Buffer): Request | Malformed {
  if (message.length < LENGTH.inHeader) return { type: "malformed", unique: undefined };
  const unique = message.readBigUInt64LE(8);
  const extensions = message.readUInt16LE(36) * 8;
  const body = message.subarray(LENGTH.inHeader, message.length - extensions);
  const isWhole =
    message.readUInt32LE(0) === message.length && message.length - extensions >= LENGTH.inHeader;
  const request = isWhole
    ? decodeBody(message.readUInt32LE(4), { unique, nodeid: readUint64(message, 16) }, body)
    : undefined;
  return request ?? { type: "malformed", unique };
}

/** Decodes what follows the header; `undefined` if it is too short or has a name without an end. */
function decodeBody(opcode: number, header: Header, body: Buffer): Request | undefined {
  const has = (length: number) => body.length >= length;
  switch (opcode) {
    case OPCODE.lookup: {
      const name = nameAt(body, 0);
      return name && { ...header, type: "lookup", name };
    }
    case OPCODE.forget: {
      if (!has(8)) return undefined;
      const forget = { nodeid: header.nodeid, count: readUint64(body, 0) };
      return { ...header, type: "forget", forgets: [forget] };
    }
    case OPCODE.batchForget:
      return batchForget(header, body);
    case OPCODE.getattr:
      return { ...header, type: "getattr" };
    case OPCODE.readlink:
      return { ...header, type: "readlink" };
    case OPCODE.statfs:
      return { ...header, type: "statfs" };
    case OPCODE.open:
      return { ...header, type: "open" };
    case OPCODE.opendir:
      return { ...header, type: "opendir" };
    case OPCODE.destroy:
      return { ...header, type: "destroy" };
    case OPCODE.read: {
      if (!has(READ_IN_LENGTH)) return undefined;
      const offset = readUint64(body, 8);
      return { ...header, type: "read", offset, size: body.readUInt32LE(16) };
    }
    case OPCODE.readdir:
    case OPCODE.readdirplus: {
      if (!has(READ_IN_LENGTH)) return undefined;
      return {
        ...header,
        type: opcode === OPCODE.readdir ? "readdir" : "readdirplus",
        handle: readUint64(body, 0),
        offset: readUint64(body, 8),
        size: body.readUInt32LE(16),
      };
    }
    case OPCODE.releasedir:
      return has(8) ? { ...header, type: "releasedir", handle: readUint64(body, 0) } : undefined;
    case OPCODE.getxattr: {
      const name = has(8) ? nameAt(body, 8) : undefined;
      return name && { ...header, type: "getxattr", name, size: body.readUInt32LE(0) };
    }
    case OPCODE.listxattr:
      return has(8) ? { ...header, type: "listxattr", size: body.readUInt32LE(0) } : undefined;
    case OPCODE.init: {
      if (!has(8)) return undefined;
      const flags = has(16) ? body.readUInt32LE(12) : 0; // a newer major version may send less
      const maxReadahead = has(12) ? body.readUInt32LE(8) : 0;
      const [major, minor] = [body.readUInt32LE(0), body.readUInt32LE(4)];
      return { ...header, type: "init", major, minor, maxReadahead, flags };
    }
    case OPCODE.interrupt:
      return has(8)
        ? { ...header, type: "interrupt", interrupted: body.readBigUInt64LE(0) }
        : undefined;
    case OPCODE.notifyReply:
      return { ...header, type: "notifyReply" };
    default:
      if (WRITES.has(opcode)) return { ...header, type: "write" };
      return { ...header, type: "unknown", opcode };
  }
}

function batchForget(header: Header, body: Buffer): Request | undefined {
  if (body.length < 8) return undefined;
  const count = body.readUInt32LE(0);
  if (body.length < 8 + count * 16) return undefined;
  const forgets = Array.from({ length: count }, (_, i) => ({
    nodeid: readUint64(body, 8 + i * 16),
    count: readUint64(body, 16 + i * 16),
  }));
  return { ...header, type: "forget", forgets };
}

/** Returns the bytes up to a NUL, which must be there. */
function nameAt(body: Buffer, start: number): Buffer | undefined {
  const end = body.indexOf(0, start);
  return end < 0 ? undefined : body.subarray(start, end);
}

/** Reads an unsigned 64-bit integer as a number, which is exact up to 2^53. */
function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 0x1_0000_0000 + bytes.readUInt32LE(at);
}
