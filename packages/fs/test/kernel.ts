import {
  Directory,
  type DirectoryEntry,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
} from "@tvix/castore";
import { MemoryPathInfoService, StorePath } from "@tvix/store";
import { Dispatcher } from "../src/dispatcher.ts";
import type { ContentsAtHand } from "../src/file-contents.ts";
import { FileSystem, type FileSystemOptions } from "../src/file-system.ts";
import type { InodeTable } from "../src/inode-table.ts";
import { LENGTH, OPCODE } from "../src/protocol/constants.ts";
import { type MountedServices, StoreSource } from "../src/store-source.ts";

/** Services in memory. */
export function memoryServices(): MountedServices {
  return {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
    pathInfoService: new MemoryPathInfoService(),
  };
}

/** Stores a directory whose sub-directories are stored, and returns its node. */
export async function putDirectory(
  { directoryService }: MountedServices,
  entries: readonly DirectoryEntry[],
): Promise<Node> {
  const directory = Directory.from(entries);
  await using putter = directoryService.openPutter();
  for (const { node } of entries) {
    if (node.type === "directory") await putter.put((await directoryService.get(node.digest))!);
  }
  await putter.put(directory);
  return { type: "directory", digest: await putter.close(), size: directory.size };
}

/** Registers a node as a store path, and returns its base name. */
export async function register(
  { pathInfoService }: MountedServices,
  name: string,
  node: Node,
): Promise<string> {
  const storePath = StorePath.from(new Uint8Array(20).fill(name.length), name);
  const sums = { narSize: 1n, narSha256: new Uint8Array(32) };
  await pathInfoService.put({ storePath, node, references: [], signatures: [], ...sums });
  return storePath.toString();
}

/** An answer of the file system. */
interface Answer {
  /** Positive; 0 for success. */
  readonly errno: number;
  readonly body: Buffer;
}

/** What a lookup found. */
interface Found {
  readonly id: number;
  readonly validSeconds: number;
  readonly size: number;
  readonly mode: number;
}

/** An entry of a folder. */
interface Listed {
  readonly name: Buffer;
  /** Offset of the entry after it. */
  readonly next: number;
  readonly type: number;
}

/** Options of {@link Kernel}. */
interface KernelOptions extends Partial<FileSystemOptions> {
  readonly services?: MountedServices;
  readonly inodes?: InodeTable;
  readonly atHand?: ContentsAtHand;
  readonly timeoutMs?: number;
}

/** Stands in for the kernel: sends requests to a file system over services, and takes its answers. */
export class Kernel {
  readonly services: MountedServices;
  readonly fileSystem: FileSystem;
  readonly errors: string[] = [];
  /** Whether an outage was told, or its end, in order. */
  readonly outages: boolean[] = [];
  readonly #dispatcher: Dispatcher;
  readonly #answers = new Map<bigint, (answer: Answer) => void>();
  /** All answers, also to messages that {@link send} sent. */
  answered = 0;
  #unique = 0n;

  constructor({
    services = memoryServices(),
    inodes,
    atHand,
    timeoutMs = 0,
    ...options
  }: KernelOptions = {}) {
    this.services = services;
    const source = new StoreSource(services, {
      storeNames: { blobs: "blobs", directories: "directories" },
      timeoutMs,
      onError: ({ message }) => this.errors.push(message),
      onOutage: (error) => this.outages.push(error !== undefined),
    });
    this.fileSystem = new FileSystem(
      {
        listRoot: true,
        showXattr: true,
        pathTtl: 60,
        absentTtl: 1,
        cacheBytes: 16 * 1024 * 1024,
        ...options,
      },
      { inodes, atHand },
    );
    this.#dispatcher = new Dispatcher({
      fileSystem: this.fileSystem,
      send: (parts) => this.#receive(Buffer.concat(parts)),
      ask: (needs) =>
        source.fetch(needs, (answers) => {
          for (const answer of answers) this.#dispatcher.answer(answer);
        }),
      cancel: (keys) => source.cancel(keys),
      aheadBytes: 8 * 1024 * 1024,
    });
  }

  /** How many requests wait. */
  get waiting(): number {
    return this.#dispatcher.waiting;
  }

  /** Sends a message as it is. */
  send(message: Buffer): void {
    this.#dispatcher.receive(message);
  }

  /** Sends a request and waits for its answer. */
  call(opcode: number, nodeid: number, body: Uint8Array = Buffer.alloc(0)): Promise<Answer> {
    return this.start(opcode, nodeid, body).answer;
  }

  /** Sends a request. */
  start(
    opcode: number,
    nodeid: number,
    body: Uint8Array = Buffer.alloc(0),
  ): { unique: bigint; answer: Promise<Answer> } {
    this.#unique += 2n;
    const unique = this.#unique;
    const answer = new Promise<Answer>((resolve) => this.#answers.set(unique, resolve));
    this.#dispatcher.receive(requestOf({ opcode, unique, nodeid, body }));
    return { unique, answer };
  }

  /** Looks a name up; returns its nodeid, 0 if it is absent, and its attributes. */
  async lookup(parent: number, name: string | Buffer): Promise<Found> {
    const { errno, body } = await this.call(
      OPCODE.lookup,
      parent,
      Buffer.concat([Buffer.from(name), Buffer.of(0)]),
    );
    if (errno !== 0) throw new Error(`errno ${errno}`);
    return {
      id: Number(body.readBigUInt64LE(0)),
      validSeconds: Number(body.readBigUInt64LE(16)),
      size: Number(body.readBigUInt64LE(48)),
      mode: body.readUInt32LE(100),
    };
  }

  /** Looks up one name after the other, from the root. */
  async walk(...names: readonly (string | Buffer)[]): Promise<number> {
    let id = 1;
    for (const name of names) ({ id } = await this.lookup(id, name));
    return id;
  }

  /** Reads a part of a file. */
  async read(nodeid: number, offset: number, size: number): Promise<Buffer> {
    const { errno, body } = await this.call(OPCODE.read, nodeid, readBody({ offset, size }));
    if (errno !== 0) throw new Error(`errno ${errno}`);
    return body;
  }

  /** Reads a folder from an offset to its end. */
  async list(nodeid: number, offset = 0, size = 4096): Promise<Listed[]> {
    const { errno, body } = await this.call(OPCODE.opendir, nodeid, Buffer.alloc(8));
    if (errno !== 0) throw new Error(`errno ${errno}`);
    const handle = Number(body.readBigUInt64LE(0));
    const entries: Listed[] = [];
    for (let at = offset; ; at = entries.at(-1)!.next) {
      const request = readBody({ handle, offset: at, size });
      const { errno, body } = await this.call(OPCODE.readdir, nodeid, request);
      if (errno !== 0) throw new Error(`errno ${errno}`);
      if (body.length === 0) return entries;
      if (body.length > size) throw new Error(`expected up to ${size} bytes, found ${body.length}`);
      for (let start = 0; start < body.length; ) {
        const length = body.readUInt32LE(start + 16);
        const name = Buffer.from(body.subarray(start + 24, start + 24 + length));
        const next = Number(body.readBigUInt64LE(start + 8));
        entries.push({ name, next, type: body.readUInt32LE(start + 20) });
        start += Math.ceil((24 + length) / 8) * 8;
      }
    }
  }

  #receive(message: Buffer): void {
    if (message.readUInt32LE(0) !== message.length) throw new Error("an answer of wrong length");
    this.answered += 1;
    const unique = message.readBigUInt64LE(8);
    this.#answers.get(unique)?.({
      errno: Math.abs(message.readInt32LE(4)),
      body: message.subarray(16),
    });
    this.#answers.delete(unique);
  }
}

/** Returns the body of READ and READDIR. */
export function readBody(read: { handle?: number; offset: number; size: number }): Buffer {
  const body = Buffer.alloc(40);
  body.writeBigUInt64LE(BigInt(read.handle ?? 0), 0);
  body.writeBigUInt64LE(BigInt(read.offset), 8);
  body.writeUInt32LE(read.size, 16);
  return body;
}

/** Returns the body of BATCH_FORGET: how many references to each inode are dropped. */
export function batchForgetBody(
  ...forgets: readonly (readonly [id: number, count: number])[]
): Buffer {
  const body = Buffer.alloc(8 + forgets.length * 16);
  body.writeUInt32LE(forgets.length, 0);
  for (const [i, [id, count]] of forgets.entries()) {
    body.writeBigUInt64LE(BigInt(id), 8 + i * 16);
    body.writeBigUInt64LE(BigInt(count), 16 + i * 16);
  }
  return body;
}

/** Returns a message of the kernel. */
export function requestOf(request: {
  opcode: number;
  unique: bigint;
  nodeid: number | bigint;
  body?: Uint8Array;
}): Buffer {
  const { opcode, unique, nodeid, body = Buffer.alloc(0) } = request;
  const message = Buffer.alloc(LENGTH.inHeader + body.length);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt32LE(opcode, 4);
  message.writeBigUInt64LE(unique, 8);
  message.writeBigUInt64LE(BigInt(nodeid), 16);
  message.set(body, LENGTH.inHeader);
  return message;
}
