import { closeSync, constants, mkdtempSync, openSync, rmdirSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CastoreError } from "@tvix/castore";
import { openDescriptors, targetOf } from "./open-descriptors.ts";
import { newPipe, type PipeHandle, sendDescriptor } from "./pipe-handle.ts";
import { socketPair } from "./socket-pair.ts";

/** How often a socket is taken over before that is given up. */
const MOST_ATTEMPTS = 10;

/** The descriptors that were open when one was received last, or began to be waited for, by any receiver. */
let seen: ReadonlyMap<number, string> = new Map();

/** Two connected sockets. */
interface Pair {
  readonly receiver: DescriptorReceiver;
  readonly peer: PipeHandle;
}

/** The last socket that is being taken over: one after the other. */
let takingOver: Promise<unknown> = Promise.resolve();
/** On which this process sends sockets to itself. */
let ownChannel: Promise<Pair> | undefined;

/** Result of one read. */
export interface Received {
  readonly bytes: Buffer;
  /**
   * Descriptors that this process has got since the last read by any receiver, in rising order, with what they are of, as
   * `/proc` tells it. Some may have been opened for something else. Those that were received belong to the caller;
   * what it does not close stays open.
   */
  readonly opened: ReadonlyMap<number, string>;
}

/**
 * Receives bytes and file descriptors of any kind on a Unix socket.
 *
 * Node receives descriptors, but aborts if the first that nobody took is neither a socket nor unknown to it, as that of a
 * file or of `/dev/fuse`. Those behind the first one wait in a queue that Node never looks at, where they stay open. So the
 * first is one that Node does not know and never takes: that of a folder. The others are found by looking at which
 * descriptors this process has.
 */
export class DescriptorReceiver {
  readonly #pipe: PipeHandle;
  readonly #fd: number;
  /** The folder that was received first; it has to stay open as long as the handle reads. */
  #folder: number | undefined;
  #isClosed = false;

  private constructor(pipe: PipeHandle) {
    this.#pipe = pipe;
    this.#pipe.onread = () => undefined;
    this.#fd = pipe.fd;
  }

  /** Opens two connected sockets: one that receives, and one for the sender. */
  static async pair(): Promise<Pair> {
    const [pipe, peer] = await socketPair();
    const receiver = new DescriptorReceiver(pipe);
    const folder = newPipe("plain", openNewFolder());
    const [received] = await Promise.all([receiver.receive(), sendDescriptor(peer, folder)]);
    [receiver.#folder] = numbersOf(targetOf(folder.fd), received);
    folder.close();
    return { receiver, peer };
  }

  /**
   * Takes over a connected socket, whose other end may send descriptors of any kind first. The handle that was given is not
   * needed any more.
   *
   * Nothing but the other end can send on that socket. So a handle that has received the descriptor of a folder on another
   * socket gets this one in its place, under the same number: it is sent from this process to itself, and the system gives
   * what is received the lowest number that is free.
   *
   * @throws CastoreError `unavailable` if other threads took that number again and again
   */
  static async over(socket: PipeHandle): Promise<DescriptorReceiver> {
    const taken = takingOver.then(() => DescriptorReceiver.#takeOver(socket));
    takingOver = taken.catch(() => undefined);
    return await taken;
  }

  static async #takeOver(socket: PipeHandle): Promise<DescriptorReceiver> {
    ownChannel ??= DescriptorReceiver.pair();
    const { receiver: channel, peer: sender } = await ownChannel;
    const target = targetOf(socket.fd);
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      const { receiver, peer } = await DescriptorReceiver.pair();
      peer.close();
      const taken = [];
      do taken.push(openSync("/dev/null", "r"));
      while (taken.at(-1)! < receiver.#fd);
      closeSync(receiver.#fd);
      const [received] = await Promise.all([channel.receive(), sendDescriptor(sender, socket)]);
      for (const fd of taken) closeSync(fd);
      if (targetOf(receiver.#fd) === target) return receiver;
      receiver.#end(); // its number is that of something else by now
      for (const fd of numbersOf(target, received)) closeSync(fd);
    }
    throw new CastoreError(
      "unavailable",
      "Cannot receive descriptors: expected a free number, found it taken by other threads",
    );
  }

  /** Sends bytes. What the other end does not take at once is refused: it has to read. */
  send(bytes: Uint8Array): void {
    writeSync(this.#fd, bytes);
  }

  /** Waits for the next bytes; `undefined` at the end. Bytes that descriptors came with are the last of a read. */
  async receive(): Promise<Received | undefined> {
    if (this.#isClosed) return undefined;
    seen = openDescriptors();
    return await new Promise<Received | undefined>((resolve) => {
      this.#pipe.onread = (bytes) => {
        this.#pipe.readStop();
        resolve(bytes && { bytes: Buffer.from(bytes), opened: newlyOpened() });
      };
      this.#pipe.readStart();
    });
  }

  /**
   * Closes the socket, which ends a {@link receive}, and no descriptor that was received. The handle stays open: closing it
   * would close the received descriptors by their numbers, which other files may have by now.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#end();
    closeSync(this.#fd);
    seen = openDescriptors(); // what gets a number anew that was closed has not been seen
  }

  /** Reads no more. */
  #end(): void {
    this.#isClosed = true;
    this.#pipe.readStop();
    this.#pipe.onread();
    if (this.#folder !== undefined) closeSync(this.#folder);
  }
}

/** Opens a folder that nothing else opens: it is removed at once. */
function openNewFolder(): number {
  const path = mkdtempSync(join(tmpdir(), "tvix-store-"));
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } finally {
    rmdirSync(path);
  }
}

/** Returns the numbers under which a file was received. */
function numbersOf(target: string | undefined, received: Received | undefined): number[] {
  return [...(received?.opened ?? [])].filter(([, one]) => one === target).map(([fd]) => fd);
}

/** Returns the descriptors that were not seen yet, with what they are of, and notes them. */
function newlyOpened(): Map<number, string> {
  const before = seen;
  seen = openDescriptors();
  const opened = new Map<number, string>();
  for (const [fd, identity] of seen) {
    if (before.get(fd) !== identity) opened.set(fd, targetOf(fd) ?? "");
  }
  return opened;
}
