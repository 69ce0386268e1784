import { AccessRefusal } from "./access-refusal.ts";

/** Options of {@link UploadLimits}. */
export interface UploadLimitOptions {
  /** How many bytes one upload may have. Default: any number. */
  maxBytes?: number | undefined;
  /** How many uploads may be in progress at once. Default: 1024. */
  maxUploads?: number | undefined;
  /** How many of them may be of one client. Default: 256. */
  maxUploadsPerClient?: number | undefined;
  /** How long an upload waits for its turn before it is refused, in milliseconds. Default: 30,000. */
  waitMs?: number | undefined;
}

interface Waiter {
  readonly client: string;
  readonly admit: () => void;
}

/** Bounds the uploads that are in progress at once. The others wait for their turn, for a limited time. */
export class UploadLimits {
  readonly maxBytes: number;
  readonly #maxUploads: number;
  readonly #maxUploadsPerClient: number;
  readonly #waitMs: number;
  readonly #perClient = new Map<string, number>();
  readonly #waiting = new Set<Waiter>();
  #uploads = 0;

  constructor(options: UploadLimitOptions = {}) {
    this.maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
    this.#maxUploads = options.maxUploads ?? 1024;
    this.#maxUploadsPerClient = options.maxUploadsPerClient ?? 256;
    this.#waitMs = options.waitMs ?? 30_000;
  }

  /**
   * Begins an upload of a client, when it is its turn. {@link leave} ends it.
   *
   * @param signal ends the wait
   * @throws AccessRefusal after waiting too long; `signal.reason`
   */
  async enter(client: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#hasRoom(client)) this.#begin(client);
    else await this.#wait(client, signal);
  }

  /** Ends an upload. */
  leave(client: string): void {
    const left = this.#perClient.get(client)! - 1;
    if (left === 0) this.#perClient.delete(client);
    else this.#perClient.set(client, left);
    this.#uploads -= 1;
    for (const waiter of this.#waiting) {
      if (!this.#hasRoom(waiter.client)) continue;
      this.#begin(waiter.client);
      waiter.admit();
      return;
    }
  }

  /** Returns how many uploads are in progress, and how many wait for their turn. */
  load(): { readonly running: number; readonly waiting: number } {
    return { running: this.#uploads, waiting: this.#waiting.size };
  }

  /** Returns the refusal of an upload that has more bytes than it may. */
  tooLarge(): AccessRefusal {
    return new AccessRefusal("too large", `expected an upload of at most ${this.maxBytes} bytes`);
  }

  #hasRoom(client: string): boolean {
    return this.#uploads < this.#maxUploads && !this.#isClientFull(client);
  }

  #isClientFull(client: string): boolean {
    return (this.#perClient.get(client) ?? 0) >= this.#maxUploadsPerClient;
  }

  #begin(client: string): void {
    this.#perClient.set(client, (this.#perClient.get(client) ?? 0) + 1);
    this.#uploads += 1;
  }

  #wait(client: string, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { client, admit: () => end(resolve) };
    const end = (settle: () => void) => {
      this.#waiting.delete(waiter);
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      settle();
    };
    const onAbort = () => end(() => reject(signal.reason));
    const timer = setTimeout(() => end(() => reject(this.#refusal(client))), this.#waitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.add(waiter);
    return promise;
  }

  #refusal(client: string): AccessRefusal {
    const retry = { retryMs: this.#waitMs };
    if (this.#isClientFull(client)) {
      const message = `this client has ${this.#maxUploadsPerClient} uploads in progress, as many as it may; try again later`;
      return new AccessRefusal("throttled", message, retry);
    }
    const message = `the server has ${this.#maxUploads} uploads in progress, as many as it takes; try again later`;
    return new AccessRefusal("busy", message, retry);
  }
}
