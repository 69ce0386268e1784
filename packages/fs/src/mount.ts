import { type FSWatcher, stat, watch, writeSync } from "node:fs";
import { extname, join } from "node:path";
import { isMarkedAsUntransferable, Worker } from "node:worker_threads";
import { freeMemory } from "@tvix/castore";
import { type FileSystemOptions, WAKE_NAME } from "./file-system.ts";
import { expectMountPoint, type MountedDevice, mountDevice } from "./mount-program.ts";
import type { Answer, Held } from "./need.ts";
import { wakeNotification } from "./protocol/reply.ts";
import { RingWriter, sharedRing } from "./shared-ring.ts";
import { type MountedServices, StoreSource, type StoreSourceOptions } from "./store-source.ts";
import {
  type DeviceThreadData,
  type FromDevice,
  type PostedAnswer,
  STATE,
} from "./thread-messages.ts";

/** Options of {@link mount}. */
export interface MountOptions extends FileSystemOptions, StoreSourceOptions {
  /** Whether users other than the one that mounts may look into it. */
  readonly allowOther: boolean;
  /** Is told of what goes wrong with the device itself. */
  readonly onTrouble: (message: string) => void;
}

/** A file system that is mounted. Disposing of it ends it at once, also while programs use it. */
export interface Mount extends AsyncDisposable {
  /** Resolves once it is unmounted, by whomever, and no program uses it any more. */
  readonly ended: Promise<void>;
  /**
   * Takes it off the folder. Programs that still use it go on until they close what they have opened.
   *
   * @returns whether nobody uses it
   */
  unmount(): Promise<boolean>;
}

/** How many bytes of contents are on their way to the thread of the device without a buffer of their own. */
const RING_BYTES = 4 * 1024 * 1024;

/** Heap limits of the thread of the device in MB. Contents are in buffers outside of the heap. */
const LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 256 };

/**
 * Mounts the store paths of services on a folder, read-only.
 *
 * @param folder absolute path of a folder
 * @throws CastoreError `not_found` or `invalid_argument` for what is no folder; `permission_denied`, `unimplemented` or
 *   `internal` where the system does not mount it
 */
export async function mount(
  folder: string,
  services: MountedServices,
  options: MountOptions,
): Promise<Mount> {
  await expectMountPoint(folder);
  const device = await mountDevice(folder, options);
  const running = new RunningMount(device, folder, services, options);
  await running.ready;
  return running;
}

class RunningMount implements Mount {
  /** Resolves once requests are served, or never will be. */
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
  readonly #device: MountedDevice;
  readonly #folder: string;
  readonly #source: StoreSource;
  readonly #worker: Worker;
  readonly #state = new Int32Array(new SharedArrayBuffer(4 * Object.keys(STATE).length));
  readonly #wake = wakeNotification();
  readonly #ring = sharedRing(RING_BYTES);
  readonly #writer = new RingWriter(this.#ring);
  #answers: Answer[] = [];
  #memory: Uint8Array[] = [];
  #isUnmounted = false;
  #watcher: FSWatcher | undefined;

  constructor(
    device: MountedDevice,
    folder: string,
    services: MountedServices,
    options: MountOptions,
  ) {
    this.#device = device;
    this.#folder = folder;
    this.#source = new StoreSource(services, options);
    const { listRoot, showXattr, pathTtl, absentTtl, cacheBytes } = options;
    const workerData: DeviceThreadData = {
      fd: device.fd,
      state: this.#state,
      ring: this.#ring,
      options: { listRoot, showXattr, pathTtl, absentTtl, cacheBytes },
      packFolder: options.diskCache === undefined ? services.blobService.packFolder : undefined,
    };
    const module = new URL(`device-thread${extname(import.meta.url)}`, import.meta.url);
    this.#worker = new Worker(module, { workerData, resourceLimits: LIMITS });
    const { promise: ready, resolve } = Promise.withResolvers<void>();
    this.#worker.on("message", (message: FromDevice) => {
      if ("needs" in message) this.#source.fetch(message.needs, this.#onAnswers);
      else if ("cancelled" in message) this.#source.cancel(message.cancelled);
      else if ("trouble" in message) options.onTrouble(message.trouble);
      else resolve(this.#pinWakeFile());
    });
    this.ended = this.#end(options.onTrouble);
    this.ready = Promise.race([ready, this.ended]);
  }

  async unmount(): Promise<boolean> {
    this.#isUnmounted = true;
    return await this.#device.unmount();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isUnmounted) await this.unmount().catch(() => false);
    Atomics.store(this.#state, STATE.stop, 1);
    this.#wakeThread();
    await this.ended;
  }

  /** Waits for the thread, and releases everything. */
  async #end(onTrouble: (message: string) => void): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#worker.on("error", (error) => {
        onTrouble(`Cannot go on: ${error.stack ?? error.message}`);
        void this.unmount().catch(() => undefined);
      });
      this.#worker.once("exit", () => resolve());
    });
    this.#watcher?.close();
    this.#device.close();
    await this.#source[Symbol.asyncDispose]();
  }

  readonly #onAnswers = (answers: readonly Answer[], memory: readonly Uint8Array[] = []): void => {
    if (this.#answers.length === 0) queueMicrotask(this.#postAnswers);
    this.#answers.push(...answers);
    this.#memory.push(...memory);
  };

  readonly #inRing = (answer: Answer): PostedAnswer => {
    const contents = contentsOf(answer);
    const region = contents && this.#writer.write(contents.bytes);
    return region === undefined ? answer : { key: answer.key, region, form: contents!.form };
  };

  readonly #postAnswers = (): void => {
    const [answers, memory] = [this.#answers, this.#memory];
    [this.#answers, this.#memory] = [[], []];
    const { moved, buffers } = movable(answers.map(this.#inRing));
    this.#worker.postMessage(moved, buffers);
    Atomics.add(this.#state, STATE.posted, 1);
    this.#wakeThread();
    for (const one of memory) freeMemory([one]); // its contents were copied, or it was moved
  };

  #wakeThread(): void {
    if (Atomics.exchange(this.#state, STATE.asleep, 0) === 0) return;
    try {
      writeSync(this.#device.fd, this.#wake);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") return; // it is unmounted, which has woken it
      stat(this.#wakeFile, () => undefined); // the kernel has forgotten the file: asking for it wakes, too
    }
  }

  get #wakeFile(): string {
    return join(this.#folder, WAKE_NAME);
  }

  /** Has the kernel keep the file that wakes for as long as the file system exists. A watch does not keep that from ending. */
  #pinWakeFile(): void {
    if (this.#isUnmounted) return;
    try {
      this.#watcher = watch(this.#wakeFile, { persistent: false }, () => undefined);
      this.#watcher.on("error", () => undefined);
    } catch {} // there are too many watches: the kernel may forget it
  }
}

/**
 * Returns answers whose contents and directories can be moved to another thread, and the buffers to move. Contents that are a
 * part of something else are copied.
 */
function movable(answers: readonly PostedAnswer[]): {
  moved: readonly PostedAnswer[];
  buffers: ArrayBuffer[];
} {
  const taken = new Map<ArrayBufferLike, number>();
  for (const answer of answers) {
    const contents = contentsOf(answer);
    if (contents === undefined) continue;
    const { buffer, length } = contents.bytes;
    taken.set(buffer, (taken.get(buffer) ?? 0) + length);
  }
  const buffers = new Set<ArrayBuffer>();
  const isMovable = ({ buffer }: Uint8Array) =>
    taken.get(buffer) === buffer.byteLength &&
    buffer instanceof ArrayBuffer &&
    !isMarkedAsUntransferable(buffer);
  const parts = answers
    .map((answer) => contentsOf(answer)?.bytes)
    .filter((bytes) => bytes && !isMovable(bytes));
  const copy = new Uint8Array(parts.reduce((sum, part) => sum + part!.length, 0));
  let copied = 0;
  const moved = answers.map((answer) => {
    const contents = contentsOf(answer);
    if (contents === undefined) {
      for (const buffer of packedBuffers(answer)) buffers.add(buffer);
      return answer;
    }
    let { bytes } = contents;
    if (!isMovable(bytes)) {
      copy.set(bytes, copied);
      bytes = copy.subarray(copied, copied + bytes.length);
      copied += bytes.length;
    }
    buffers.add(bytes.buffer as ArrayBuffer);
    return { key: answer.key, supply: { bytes, form: contents.form } };
  });
  return { moved, buffers: [...buffers] };
}

function contentsOf(answer: PostedAnswer): Held | undefined {
  const supply = "supply" in answer ? answer.supply : undefined;
  return supply !== undefined && "form" in supply ? supply : undefined;
}

/** Returns the memory of a directory, which nobody else has. */
function packedBuffers(answer: PostedAnswer): readonly ArrayBuffer[] {
  const supply = "supply" in answer ? answer.supply : undefined;
  if (supply === undefined || !("starts" in supply)) return [];
  return [supply.bytes.buffer, supply.starts.buffer];
}
