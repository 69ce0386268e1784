import { closeSync, writeSync } from "node:fs";
import type { DescriptorReceiver } from "../descriptors/descriptor-receiver.ts";
import { newPipe, type PipeHandle } from "../descriptors/pipe-handle.ts";
import { SentDescriptors } from "../descriptors/sent-descriptors.ts";
import { GuestMemory, type MemoryRegion } from "./guest-memory.ts";
import type { GuestRequests } from "./guest-requests.ts";
import { refusal, VHOST, type VhostMessage, VhostMessages, vhostReply } from "./vhost-message.ts";
import { address64, type QueueAddresses, Virtqueue } from "./virtqueue.ts";

/** One queue for what must not wait, and those for requests. */
const MOST_QUEUES = 9;

/** Features of virtio: version 1, tables of descriptors outside of the queue, and that of vhost-user below. */
const FEATURES = (1n << 32n) | (1n << 28n) | (1n << 30n);
/** Features of the protocol: several queues, and acknowledgements. */
const PROTOCOL_FEATURES = 1n | (1n << 3n);

const SIGNAL = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

/** A queue as it was told, before and while it runs. */
interface QueueState {
  entries: number;
  addresses: QueueAddresses | undefined;
  base: number;
  isEnabled: boolean;
  kick: PipeHandle | undefined;
  kickFd: number | undefined;
  callFd: number | undefined;
  running: Virtqueue | undefined;
}

/** The connection with the process of one virtual machine, which speaks vhost-user. */
export class GuestSession {
  readonly #receiver: DescriptorReceiver;
  readonly #requests: GuestRequests;
  readonly #onTrouble: (message: string) => void;
  readonly #messages = new VhostMessages();
  readonly #queues: QueueState[] = Array.from({ length: MOST_QUEUES }, () => ({
    entries: 0,
    addresses: undefined,
    base: 0,
    isEnabled: true,
    kick: undefined,
    kickFd: undefined,
    callFd: undefined,
    running: undefined,
  }));
  readonly #descriptors = new SentDescriptors();
  #memory = new GuestMemory();

  constructor(
    receiver: DescriptorReceiver,
    requests: GuestRequests,
    onTrouble: (message: string) => void,
  ) {
    this.#receiver = receiver;
    this.#requests = requests;
    this.#onTrouble = onTrouble;
  }

  /** Serves until the connection ends, by whomever. Whatever is sent, it does not reject. */
  async serve(): Promise<void> {
    try {
      for (;;) {
        const received = await this.#receiver.receive();
        if (received === undefined) break;
        this.#messages.add(received.bytes);
        this.#descriptors.add(received.opened);
        for (let message = this.#messages.next(); message; message = this.#messages.next()) {
          await this.#handle(message);
        }
        if (!this.#messages.hasPart) this.#descriptors.closeRest();
      }
    } catch (error) {
      this.#onTrouble((error as Error).message);
    } finally {
      this.#release();
    }
  }

  /** Ends the connection. */
  close(): void {
    this.#receiver.close();
  }

  async #handle(message: VhostMessage): Promise<void> {
    const { request, payload, needsReply } = message;
    const reply = await this.#replyTo(request, payload);
    if (reply !== undefined) this.#receiver.send(vhostReply(request, reply));
    else if (needsReply) this.#receiver.send(vhostReply(request, uint64(0n)));
  }

  async #replyTo(request: number, payload: Buffer): Promise<Buffer | undefined> {
    const expect = (length: number) => {
      if (payload.length >= length) return;
      throw refusal(request, `${length} bytes`, `${payload.length}`);
    };
    switch (request) {
      case VHOST.getFeatures:
        return uint64(FEATURES);
      case VHOST.getProtocolFeatures:
        return uint64(PROTOCOL_FEATURES);
      case VHOST.getQueueNumber:
        return uint64(BigInt(MOST_QUEUES));
      case VHOST.setFeatures:
      case VHOST.setProtocolFeatures:
      case VHOST.setOwner:
      case VHOST.resetOwner:
        return undefined;
      case VHOST.setMemoryTable:
        await this.#setMemory(request, payload);
        return undefined;
    }
    expect(8);
    const number = payload.readUInt32LE(0);
    const isDescriptor =
      request === VHOST.setVringKick ||
      request === VHOST.setVringCall ||
      request === VHOST.setVringError;
    const queue = this.#queues[isDescriptor ? number & 0xff : number];
    if (queue === undefined) throw refusal(request, `one of ${MOST_QUEUES} queues`, `${number}`);
    switch (request) {
      case VHOST.setVringNumber:
        queue.entries = payload.readUInt32LE(4);
        return undefined;
      case VHOST.setVringBase:
        queue.base = payload.readUInt32LE(4);
        return undefined;
      case VHOST.setVringEnable:
        queue.isEnabled = payload.readUInt32LE(4) === 1;
        this.#start(queue);
        return undefined;
      case VHOST.setVringAddress:
        expect(40);
        queue.addresses = {
          descriptors: address64(payload, 8),
          used: address64(payload, 16),
          available: address64(payload, 24),
        };
        return undefined;
      case VHOST.getVringBase: {
        const base = queue.running?.next ?? queue.base;
        this.#stop(queue);
        queue.base = base;
        const reply = Buffer.alloc(8);
        reply.writeUInt32LE(number, 0);
        reply.writeUInt32LE(base, 4);
        return reply;
      }
    }
    if (!isDescriptor) throw refusal(request, "a message that is known", "another one");
    const hasNone = (number & 0x100) !== 0;
    const [fd] = hasNone ? [] : await this.#take(request, 1, "event");
    if (request === VHOST.setVringCall) {
      if (queue.callFd !== undefined) closeSync(queue.callFd);
      queue.callFd = fd;
    } else if (request === VHOST.setVringKick) {
      this.#stop(queue);
      queue.kickFd = fd;
      this.#start(queue);
    } else if (fd !== undefined) {
      closeSync(fd); // errors are logged here
    }
    return undefined;
  }

  async #setMemory(request: number, payload: Buffer): Promise<void> {
    const count = payload.length < 8 ? 0 : payload.readUInt32LE(0);
    if (payload.length < 8 + count * 32) throw refusal(request, `${count} regions`, "fewer");
    const fds = await this.#take(request, count, "memory");
    const before = this.#memory.regions;
    const regions = fds.map((fd, i): MemoryRegion => {
      const at = 8 + i * 32;
      return {
        guestAddress: address64(payload, at),
        size: address64(payload, at + 8),
        userAddress: address64(payload, at + 16),
        offset: address64(payload, at + 24),
        fd,
      };
    });
    this.#memory = new GuestMemory(regions);
    for (const { fd } of before) closeSync(fd);
    for (const queue of this.#queues) {
      if (queue.running !== undefined) queue.base = queue.running.next;
      queue.running = undefined;
      this.#start(queue);
    }
  }

  /** Returns the descriptors that came with a message. */
  async #take(request: number, count: number, kind: "event" | "memory"): Promise<number[]> {
    const found = await this.#descriptors.take(count, kind);
    if (found.length === count) return found;
    throw refusal(request, `${count} descriptors`, `${found.length}`);
  }

  /** Starts a queue of which all is known. */
  #start(queue: QueueState): void {
    const { addresses, kickFd, isEnabled, entries, base } = queue;
    if (!isEnabled || kickFd === undefined || addresses === undefined) return;
    if (this.#memory.regions.length === 0) return;
    if (queue.running === undefined) {
      queue.running = new Virtqueue(this.#memory, entries, addresses, base);
    }
    if (queue.kick === undefined) {
      queue.kick = newPipe("plain", kickFd);
      queue.kick.onread = () => this.#serveQueue(queue);
      queue.kick.readStart();
    }
    this.#serveQueue(queue); // it may have been kicked before
  }

  #stop(queue: QueueState): void {
    queue.running = undefined;
    // The virtual machine has the same event open: only closing the handle ends waiting for it.
    if (queue.kick !== undefined) queue.kick.close();
    else if (queue.kickFd !== undefined) closeSync(queue.kickFd);
    queue.kick = undefined;
    queue.kickFd = undefined;
  }

  #serveQueue(queue: QueueState): void {
    const { running } = queue;
    if (running === undefined || !queue.isEnabled) return;
    const memory = this.#memory;
    this.#guarded(queue, () => {
      for (let chain = running.take(); chain !== undefined; chain = running.take()) {
        const taken = chain;
        const done = (written: number) => {
          if (queue.running !== running) return; // it was stopped
          this.#guarded(queue, () => {
            if (running.give(taken, written) && queue.callFd !== undefined) {
              writeSync(queue.callFd, SIGNAL);
            }
          });
        };
        this.#requests.receive({ memory, chain: taken, done });
      }
    });
  }

  /** Stops a queue that its guest broke. */
  #guarded(queue: QueueState, serve: () => void): void {
    try {
      serve();
    } catch (error) {
      queue.running = undefined;
      queue.kick?.readStop();
      this.#onTrouble((error as Error).message);
    }
  }

  #release(): void {
    this.#requests.reset();
    this.#descriptors.closeRest();
    for (const queue of this.#queues) {
      this.#stop(queue);
      if (queue.callFd !== undefined) closeSync(queue.callFd);
      queue.callFd = undefined;
    }
    for (const { fd } of this.#memory.regions) closeSync(fd);
    this.#memory = new GuestMemory();
    this.#receiver.close();
  }
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}
