import { ByteBudget } from "@tvix/castore";
import { HttpError } from "../http-error.ts";

/** Options of {@link UploadSlots}. */
export interface UploadSlotOptions {
  /** How many uploads may be under way. Default: 16. */
  readonly all?: number | undefined;
  /** How many of them may be of one client. Default: all. */
  readonly perClient?: number | undefined;
  /** How long others wait, in milliseconds. Default: 60,000. */
  readonly waitMs?: number | undefined;
  /**
   * Counts an upload for limits that it shares with others, until what it resolves with is disposed of. Default: there are
   * none.
   *
   * @throws HttpError for an upload that is beyond them
   */
  readonly admit?: ((client: string, signal: AbortSignal) => Promise<Disposable>) | undefined;
}

/** Seconds after which a client that was refused should try again. */
const RETRY_AFTER_SECONDS = 5;

/** Bounds how many uploads are under way. Others wait in the order in which they came. */
export class UploadSlots {
  readonly #limits: { readonly all: number; readonly perClient: number; readonly waitMs: number };
  readonly #admit: UploadSlotOptions["admit"];
  readonly #all: ByteBudget;
  readonly #clients = new Map<string, { readonly slots: ByteBudget; uploads: number }>();

  constructor({ all = 16, perClient = all, waitMs = 60_000, admit }: UploadSlotOptions = {}) {
    this.#admit = admit;
    this.#limits = { all, perClient, waitMs };
    this.#all = new ByteBudget(all);
  }

  /**
   * Runs an upload once there is a slot for it.
   *
   * @param client whose upload it is, such as an address
   * @throws HttpError 503 if there is none for too long, and as `admit` does; `signal.reason` when cancelled while it waits
   */
  async run<T>(client: string, signal: AbortSignal, upload: () => Promise<T>): Promise<T> {
    using _admitted = await this.#admit?.(client, signal);
    const own = this.#clients.get(client) ?? {
      slots: new ByteBudget(this.#limits.perClient),
      uploads: 0,
    };
    this.#clients.set(client, own);
    own.uploads += 1;
    try {
      using _slots = await this.#take([own.slots, this.#all], signal);
      return await upload();
    } finally {
      own.uploads -= 1;
      if (own.uploads === 0) this.#clients.delete(client);
    }
  }

  /** Takes one of each kind of slots, which are given back when the result is disposed of. */
  async #take(kinds: readonly ByteBudget[], signal: AbortSignal): Promise<Disposable> {
    using taken = new DisposableStack();
    let limits: { readonly timeout: AbortSignal; readonly signal: AbortSignal } | undefined;
    for (const slots of kinds) {
      if (!slots.tryTake(1)) {
        if (limits === undefined) {
          const timeout = AbortSignal.timeout(this.#limits.waitMs);
          limits = { timeout, signal: AbortSignal.any([signal, timeout]) };
        }
        const { timeout } = limits;
        await slots.take(1, limits).catch((error) => {
          throw error === timeout.reason && timeout.aborted ? this.#refusal() : error;
        });
      }
      taken.defer(() => slots.release(1));
    }
    return taken.move();
  }

  #refusal(): HttpError {
    const { all, perClient, waitMs } = this.#limits;
    const limits = `${all} uploads at once, ${perClient} of one client`;
    return new HttpError(
      503,
      `Cannot take the upload: expected one of ${limits}, to end within ${waitMs} ms, found none; try again later`,
      { headers: { "retry-after": RETRY_AFTER_SECONDS } },
    );
  }
}
