/**
 * The thread that reads requests from the FUSE device and answers them. Reading blocks it: to wait in an event loop costs
 * several times as much as most requests. What has to be fetched is asked for in messages, and taken between two requests;
 * the other thread wakes this one by a notification to the kernel, which turns it into a request.
 */
import { readSync, writeSync, writevSync } from "node:fs";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { PackView } from "@tvix/castore/pack-view";
import { Dispatcher } from "./dispatcher.ts";
import type { ContentsAtHand } from "./file-contents.ts";
import { FileSystem } from "./file-system.ts";
import type { Answer } from "./need.ts";
import { bytesIn, release } from "./shared-ring.ts";
import {
  type DeviceThreadData,
  type FromDevice,
  type PostedAnswer,
  STATE,
} from "./thread-messages.ts";

/** Longest request: more than any that a read-only file system gets. */
const REQUEST_BYTES = 128 * 1024;

const { fd, state, options, packFolder, ring } = workerData as DeviceThreadData;
const port = parentPort!;
const tell = (message: FromDevice) => port.postMessage(message);

const dispatcher = new Dispatcher({
  fileSystem: new FileSystem(options, { atHand: chunksIn(packFolder) }),
  send: (parts) => unlessAnswered(() => writeParts(parts)),
  ask: (needs) => tell({ needs }),
  cancel: (keys) => tell({ cancelled: keys }),
  aheadBytes: options.cacheBytes / 2,
});

const buffer = Buffer.alloc(REQUEST_BYTES);
let taken = 0;
tell({ isReady: true });
for (let length = 0; length >= 0; length = readRequest()) {
  if (length > 0) dispatcher.receive(buffer.subarray(0, length));
  takeAnswers();
}
port.close();

/** Returns the chunks of a pack store; `undefined` where this thread cannot read them. The other thread then tells why. */
function chunksIn(folder: string | undefined): ContentsAtHand | undefined {
  if (folder === undefined) return undefined;
  try {
    const view = new PackView(folder);
    return {
      read(digest, target) {
        try {
          return view.read(Buffer.from(digest, "latin1"), target);
        } catch {
          return false;
        }
      },
    };
  } catch {
    return undefined;
  }
}

/** Takes the answers that have come. */
function takeAnswers(): void {
  while (taken !== Atomics.load(state, STATE.posted)) {
    const received = receiveMessageOnPort(port);
    if (received === undefined) return; // is on its way
    taken = (taken + 1) | 0;
    const answers = received.message as readonly PostedAnswer[];
    for (const answer of answers) dispatcher.answer(withContents(answer));
    for (const answer of answers) free(answer);
  }
}

/** Returns an answer with the contents that stand in the ring. */
function withContents(answer: PostedAnswer): Answer {
  if (!("region" in answer)) return answer;
  const { key, region, form } = answer;
  return { key, supply: { bytes: bytesIn(ring, region), form } };
}

/**
 * Makes room in the ring, or frees the buffer of contents, which belongs to this thread and has been copied. Left to the
 * garbage collector, many times as much would be in memory.
 */
function free(answer: PostedAnswer): void {
  if ("region" in answer) {
    release(ring, answer.region);
    return;
  }
  const supply = "supply" in answer ? answer.supply : undefined;
  if (supply === undefined || !("form" in supply)) return;
  const { buffer } = supply.bytes;
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0); // several may share it
}

/** Waits for a request. Returns its length; 0 if there may be answers, -1 once the file system is unmounted. */
function readRequest(): number {
  if (Atomics.load(state, STATE.stop) === 1) return -1;
  Atomics.store(state, STATE.asleep, 1);
  if (taken !== Atomics.load(state, STATE.posted)) {
    Atomics.store(state, STATE.asleep, 0);
    return 0;
  }
  try {
    return readSync(fd, buffer, 0, buffer.length, null);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENODEV") return -1;
    // ENOENT: the request was taken back.
    if (code === "EINTR" || code === "EAGAIN" || code === "ENOENT") return 0;
    throw error;
  } finally {
    Atomics.store(state, STATE.asleep, 0);
  }
}

function writeParts(parts: readonly Uint8Array[]): void {
  if (parts.length === 1) writeSync(fd, parts[0]!);
  else writevSync(fd, parts);
}

/** Writes an answer. The kernel refuses one to a request that it has given up, and any once it is unmounted. */
function unlessAnswered(write: () => void): void {
  try {
    write();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENODEV") tell({ trouble: `Cannot answer: ${message}` });
  }
}
