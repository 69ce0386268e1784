import { closeSync, constants, openSync, readdirSync, readlinkSync } from "node:fs";
import { newPipe, type PipeHandle, sendDescriptor } from "./pipe-handle.ts";
import { socketPair } from "./socket-pair.ts";

/** What was received by one read. */
export interface Received {
  readonly bytes: Buffer;
  /**
   * Descriptors that this process has got since the read began, in rising order, with what they are of, as `/proc` tells it.
   * Other threads may have opened some of them. Those that were received belong to the caller.
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
  #isClosed = false;

  private constructor(pipe: PipeHandle) {
    this.#pipe = pipe;
    this.#pipe.onread = () => undefined;
    this.#fd = pipe.fd;
  }

  /** Opens two connected sockets: one that receives, and one to hand to whoever sends. */
  static async pair(): Promise<{ receiver: DescriptorReceiver; peer: PipeHandle }> {
    const [pipe, peer] = await socketPair();
    const receiver = new DescriptorReceiver(pipe);
    const folder = newPipe("plain", openSync("/", constants.O_RDONLY | constants.O_DIRECTORY));
    await Promise.all([receiver.receive(), sendDescriptor(peer, folder)]);
    folder.close();
    return { receiver, peer };
  }

  /** Waits for the next bytes; `undefined` at the end. Bytes that descriptors came with are the last of a read. */
  async receive(): Promise<Received | undefined> {
    if (this.#isClosed) return undefined;
    const before = openDescriptors();
    const bytes = await new Promise<ArrayBuffer | undefined>((resolve) => {
      this.#pipe.onread = (bytes) => {
        this.#pipe.readStop();
        resolve(bytes);
      };
      this.#pipe.readStart();
    });
    if (bytes === undefined) return undefined;
    const opened = new Map<number, string>();
    for (const [fd, target] of openDescriptors()) {
      if (before.get(fd) !== target) opened.set(fd, target);
    }
    return { bytes: Buffer.from(bytes), opened };
  }

  /**
   * Closes the socket, which ends a {@link receive}, and no descriptor that was received. The handle stays: closing it would close by their numbers those
   * that were received, also where others have these numbers now.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pipe.readStop();
    this.#pipe.onread();
    closeSync(this.#fd);
  }
}

/** Returns what the descriptors of this process are of. */
function openDescriptors(): Map<number, string> {
  const found = new Map<number, string>();
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      found.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {} // was open for the listing only
  }
  return new Map([...found].sort(([a], [b]) => a - b));
}
