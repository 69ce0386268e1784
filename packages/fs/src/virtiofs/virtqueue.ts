import { CastoreError } from "@tvix/castore";
import type { GuestMemory } from "./guest-memory.ts";

/** A part of the memory of a guest. */
export interface Segment {
  readonly address: number;
  readonly length: number;
}

/** A request in a queue: descriptors that belong together. */
export interface Chain {
  readonly head: number;
  /** What the guest sends. */
  readonly readable: readonly Segment[];
  /** Where it expects the answer. */
  readonly writable: readonly Segment[];
}

/** Where the three parts of a queue are, as addresses of the process of the virtual machine. */
export interface QueueAddresses {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** Flags of a descriptor. */
const FLAG = { next: 1, write: 2, indirect: 4 } as const;
const DESCRIPTOR_BYTES = 16;
/** Flag of the available ring: the guest wants no interrupt. */
const NO_INTERRUPT = 1;

/** Longest queue, as virtio has it. */
const MOST_ENTRIES = 32_768;

/**
 * A split virtqueue of virtio 1.0, from the side of the device. Whatever the guest writes into it, no call takes longer than
 * the queue is long.
 *
 * All methods throw CastoreError `invalid_argument` for what breaks the protocol: the queue cannot be used any more then.
 */
export class Virtqueue {
  readonly #memory: GuestMemory;
  readonly #entries: number;
  readonly #at: QueueAddresses;
  readonly #word = Buffer.alloc(2);
  readonly #element = Buffer.alloc(8);
  readonly #table: Buffer;
  #next: number;
  #used: number;
  #inFlight = 0;

  /** @param next index of the request to begin with */
  constructor(memory: GuestMemory, entries: number, at: QueueAddresses, next: number) {
    if (entries < 1 || entries > MOST_ENTRIES || (entries & (entries - 1)) !== 0) {
      throw broken(`expected a power of two up to ${MOST_ENTRIES} as its length, found ${entries}`);
    }
    this.#memory = memory;
    this.#entries = entries;
    this.#at = at;
    this.#table = Buffer.alloc(entries * DESCRIPTOR_BYTES);
    this.#next = next & 0xffff;
    this.#used = this.#word16(at.used + 2);
  }

  /** Index of the request that is taken next. */
  get next(): number {
    return this.#next;
  }

  /** Takes the next request; `undefined` if there is none. */
  take(): Chain | undefined {
    const waiting = (this.#word16(this.#at.available + 2) - this.#next) & 0xffff;
    if (waiting === 0) return undefined;
    if (waiting + this.#inFlight > this.#entries) {
      throw broken(`expected up to ${this.#entries} requests, found ${waiting + this.#inFlight}`);
    }
    const head = this.#word16(this.#at.available + 4 + 2 * (this.#next % this.#entries));
    this.#memory.read(this.#table, this.#at.descriptors, "userAddress");
    const chain = this.#chainFrom(head);
    this.#next = (this.#next + 1) & 0xffff;
    this.#inFlight += 1;
    return chain;
  }

  /**
   * Gives a request back, with the length of the answer.
   *
   * @returns whether the guest is to be interrupted
   */
  give({ head }: Chain, written: number): boolean {
    this.#element.writeUInt32LE(head, 0);
    this.#element.writeUInt32LE(written, 4);
    const slot = this.#at.used + 4 + 8 * (this.#used % this.#entries);
    this.#memory.write(this.#element, slot, "userAddress");
    this.#used = (this.#used + 1) & 0xffff;
    this.#word.writeUInt16LE(this.#used);
    this.#memory.write(this.#word, this.#at.used + 2, "userAddress");
    this.#inFlight -= 1;
    return (this.#word16(this.#at.available) & NO_INTERRUPT) === 0;
  }

  #chainFrom(head: number): Chain {
    const readable: Segment[] = [];
    const writable: Segment[] = [];
    let table = this.#table;
    let index = head;
    for (let steps = 0; ; steps++) {
      const count = table.length / DESCRIPTOR_BYTES;
      if (steps >= count) throw broken("expected descriptors in a row, found a loop");
      if (index >= count) throw broken(`expected one of ${count} descriptors, found ${index}`);
      const at = index * DESCRIPTOR_BYTES;
      const address = address64(table, at);
      const length = table.readUInt32LE(at + 8);
      const flags = table.readUInt16LE(at + 12);
      if ((flags & FLAG.indirect) !== 0) {
        if (table !== this.#table || (flags & FLAG.next) !== 0) {
          throw broken("expected one table of descriptors, found several");
        }
        table = this.#indirect(address, length);
        index = 0;
        steps = -1;
        continue;
      }
      if ((flags & FLAG.write) !== 0) join(writable, address, length);
      else if (writable.length > 0) throw broken("expected what is read first, found it last");
      else join(readable, address, length);
      if ((flags & FLAG.next) === 0) return { head, readable, writable };
      index = table.readUInt16LE(at + 14);
    }
  }

  #indirect(address: number, length: number): Buffer {
    const most = this.#entries * DESCRIPTOR_BYTES;
    if (length === 0 || length > most || length % DESCRIPTOR_BYTES !== 0) {
      throw broken(`expected a table of up to ${most} bytes, found ${length}`);
    }
    const table = Buffer.alloc(length);
    this.#memory.read(table, address);
    return table;
  }

  #word16(address: number): number {
    this.#memory.read(this.#word, address, "userAddress");
    return this.#word.readUInt16LE();
  }
}

/** Reads an address. Above 2^53 it is not exact, and outside of every memory. */
export function address64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 0x1_0000_0000 + bytes.readUInt32LE(at);
}

/** Adds a segment, as a part of the last one if it follows that in memory. */
function join(segments: Segment[], address: number, length: number): void {
  const last = segments.at(-1);
  if (last === undefined || last.address + last.length !== address) {
    segments.push({ address, length });
  } else {
    segments[segments.length - 1] = { address: last.address, length: last.length + length };
  }
}

function broken(reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use the queue of the guest: ${reason}`);
}
