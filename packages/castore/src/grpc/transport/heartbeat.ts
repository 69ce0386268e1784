import type { Http2Session } from "node:http2";
import type { Socket } from "node:net";

/** No link is taken to be slower than so many bytes a millisecond. */
const SLOWEST_LINK = 64;

/** Options of a {@link Heartbeat}. */
export interface HeartbeatOptions {
  /** After this long without a byte from the peer it is sent a PING, in milliseconds. */
  idleMs: number;
  /**
   * How long the peer may take to send anything from then on, in milliseconds. More where bytes are on their way to
   * it, as the PING comes behind them.
   */
  timeoutMs: number;
  /** Is asked before a PING. Default: it is always sent. */
  isNeeded?: () => boolean;
  /** Is called when nothing came. Ends the session. */
  onSilence: () => void;
}

/** What a connection has moved so far, in bytes. */
interface Progress {
  readonly received: number;
  readonly left: number;
  readonly queued: number;
}

/**
 * Notices that the peer of a session is gone. A peer that is slow is not: any byte that it sends counts, and where
 * more is queued than the system takes, so does any byte that leaves, for which its system has to make room.
 */
export class Heartbeat {
  readonly #session: Http2Session;
  readonly #options: HeartbeatOptions;
  #timer: NodeJS.Timeout | undefined;
  /** How many bytes had come when the peer was last looked at. */
  #received = 0;
  /** How many bytes may still be on their way to the peer, when {@link #underWayNow} was last called. */
  #underWay = 0;
  #left = 0;
  #lookedMs: number = performance.now();
  #isPinging = false;

  constructor(session: Http2Session, options: HeartbeatOptions) {
    this.#session = session;
    this.#options = options;
    session.once("close", () => clearTimeout(this.#timer));
    this.#watch();
  }

  /** Sends a PING now if the peer has sent nothing since it was last looked at. */
  check(): void {
    if (!this.#isPinging && !this.#session.destroyed && !this.#hears()) this.#ping();
  }

  /** Tells whether the peer was heard of since it was last looked at. */
  #hears(): boolean {
    const before = this.#received;
    this.#received = this.#progress().received;
    this.#underWayNow();
    return this.#received > before;
  }

  /** Estimates how many bytes are on their way to the peer, over the slowest link that there may be. */
  #underWayNow(): number {
    const { left } = this.#progress();
    const nowMs = performance.now();
    const arrived = (nowMs - this.#lookedMs) * SLOWEST_LINK;
    this.#underWay = Math.max(this.#underWay - arrived, 0) + left - this.#left;
    this.#left = left;
    this.#lookedMs = nowMs;
    return this.#underWay;
  }

  #watch(): void {
    this.#timer = setTimeout(() => {
      const { isNeeded = () => true } = this.#options;
      if (this.#session.destroyed) return;
      if (this.#hears() || !isNeeded()) this.#watch();
      else this.#ping();
    }, this.#options.idleMs).unref();
  }

  #ping(): void {
    this.#isPinging = true;
    this.#session.ping(() => undefined);
    this.#expect();
  }

  #expect(): void {
    clearTimeout(this.#timer);
    const before = this.#progress();
    const timeoutMs = this.#options.timeoutMs + this.#underWayNow() / SLOWEST_LINK;
    this.#timer = setTimeout(() => {
      if (this.#session.destroyed) return;
      if (this.#hears()) {
        this.#isPinging = false;
        this.#watch();
      } else if (before.queued > 0 && this.#progress().left > before.left) {
        this.#expect();
      } else {
        this.#options.onSilence();
      }
    }, timeoutMs).unref();
  }

  #progress(): Progress {
    const socket = this.#session.socket as Socket & {
      readonly _handle?: { readonly writeQueueSize?: number } | null;
    };
    const { bytesRead, bytesWritten, _handle } = socket;
    const queued = _handle?.writeQueueSize ?? 0;
    return { received: bytesRead, left: bytesWritten - queued, queued };
  }
}
