import { Dispatcher } from "../dispatcher.ts";
import { FileSystem, type FileSystemOptions } from "../file-system.ts";
import { ERRNO, LENGTH, OPCODE } from "../protocol/constants.ts";
import { writeOutHeader } from "../protocol/reply.ts";
import type { StoreSource } from "../store-source.ts";
import type { GuestMemory } from "./guest-memory.ts";
import type { Chain, Segment } from "./virtqueue.ts";

/** A request of a guest, and what to do once it is answered. */
export interface GuestRequest {
  readonly memory: GuestMemory;
  readonly chain: Chain;
  /** Gives it back, with the length of the answer. */
  readonly done: (written: number) => void;
}

/** Longest request: more than any that a read-only file system gets. */
const REQUEST_BYTES = 128 * 1024;

/** Requests without an answer. */
const SILENT: ReadonlySet<number> = new Set([
  OPCODE.forget,
  OPCODE.batchForget,
  OPCODE.interrupt,
  OPCODE.notifyReply,
]);

/** Answers requests of the kernel of a guest, by the file system that a mount has, too. */
export class GuestRequests {
  readonly #source: StoreSource;
  readonly #options: FileSystemOptions;
  readonly #message = Buffer.alloc(REQUEST_BYTES);
  /** Requests that wait for an answer, by the numbers that they have here. */
  #waiting = new Map<bigint, GuestRequest & { readonly unique: bigint }>();
  #fileSystem: Dispatcher;
  #last = 0n;

  constructor(source: StoreSource, options: FileSystemOptions) {
    this.#source = source;
    this.#options = options;
    this.#fileSystem = this.#newFileSystem();
  }

  /**
   * Takes a request.
   *
   * @throws CastoreError `invalid_argument` for one outside of the memory of the guest
   */
  receive(request: GuestRequest): void {
    const { memory, chain, done } = request;
    const length = chain.readable.reduce((sum, segment) => sum + segment.length, 0);
    if (length > REQUEST_BYTES || length < LENGTH.inHeader) {
      done(0);
      return;
    }
    let at = 0;
    for (const { address, length } of chain.readable) {
      memory.read(this.#message.subarray(at, at + length), address);
      at += length;
    }
    const message = this.#message.subarray(0, length);
    const opcode = message.readUInt32LE(4);
    if (opcode === OPCODE.init) this.reset(); // it was started anew, and knows no inode
    this.#last += 1n;
    if (SILENT.has(opcode)) {
      this.#fileSystem.receive(message);
      done(0);
      return;
    }
    // The numbers of guests may be any; ours tell requests apart.
    this.#waiting.set(this.#last, { ...request, unique: message.readBigUInt64LE(8) });
    message.writeBigUInt64LE(this.#last, 8);
    this.#fileSystem.receive(message);
  }

  /** Forgets what the guest knows, and all requests that wait. */
  reset(): void {
    for (const unique of this.#waiting.keys()) this.#fileSystem.abandon(unique);
    this.#waiting = new Map();
    this.#fileSystem = this.#newFileSystem();
  }

  #newFileSystem(): Dispatcher {
    const dispatcher = new Dispatcher({
      fileSystem: new FileSystem(this.#options),
      send: (parts) => this.#answer(parts),
      ask: (needs) =>
        this.#source.fetch(needs, (answers) => {
          for (const answer of answers) dispatcher.answer(answer);
        }),
      cancel: (keys) => this.#source.cancel(keys),
      aheadBytes: this.#options.cacheBytes / 2,
    });
    return dispatcher;
  }

  #answer(parts: readonly Uint8Array[]): void {
    const header = Buffer.from(parts[0]!);
    const number = header.readBigUInt64LE(8);
    const request = this.#waiting.get(number);
    if (request === undefined) return;
    this.#waiting.delete(number);
    const { memory, chain, unique, done } = request;
    header.writeBigUInt64LE(unique, 8);
    const room = chain.writable.reduce((sum, segment) => sum + segment.length, 0);
    let answer = [header, ...parts.slice(1)];
    if (header.readUInt32LE(0) > room) {
      writeOutHeader(header, unique, { errno: ERRNO.EIO });
      answer = [header];
    }
    done(room < LENGTH.outHeader ? 0 : scatter(memory, chain.writable, answer));
  }
}

/** Writes parts, one after the other, into segments, and returns how many bytes there were. */
function scatter(
  memory: GuestMemory,
  segments: readonly Segment[],
  parts: readonly Uint8Array[],
): number {
  let written = 0;
  let segment = 0;
  let filled = 0;
  for (const part of parts) {
    for (let at = 0; at < part.length; ) {
      const { address, length } = segments[segment]!;
      const piece = part.subarray(at, at + length - filled);
      if (piece.length > 0) memory.write(piece, address + filled);
      at += piece.length;
      filled += piece.length;
      if (filled < length) continue;
      segment += 1;
      filled = 0;
    }
    written += part.length;
  }
  return written;
}
