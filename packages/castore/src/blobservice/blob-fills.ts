import type { Tiers } from "../cache/tiers.ts";
import type { B3Digest } from "../model/digest.ts";
import { BlobFill } from "./blob-fill.ts";
import type { BlobService } from "./blob-service.ts";
import { WindowSpace } from "./piece-window.ts";
import type { NearReads } from "./read-sharing.ts";

/** How many blobs are copied at the same time. */
const MAX_FILLS = 64;

/** How many of them go on that have more to read of the far blob, and that nobody reads along with. */
const MAX_IDLE = 4;

/** The copies of blobs that are under way. */
export class BlobFills {
  readonly #tiers: Tiers<BlobService>;
  readonly #near: NearReads;
  readonly #fills = new Map<string, BlobFill>();
  readonly #space = new WindowSpace();

  constructor(tiers: Tiers<BlobService>, near: NearReads) {
    this.#tiers = tiers;
    this.#near = near;
  }

  /** The copy of a blob, begun if it is not under way; `undefined` if there is no room for another one. */
  of(digest: B3Digest): BlobFill | undefined {
    const { hex } = digest;
    const running = this.#fills.get(hex);
    if (running !== undefined) return running;
    const isFull = this.#fills.size >= MAX_FILLS || this.#space.isFull;
    if (isFull || this.#tiers.writing.isSilent) return undefined;
    const fill = new BlobFill({
      digest,
      tiers: this.#tiers,
      near: this.#near,
      space: this.#space,
      onIdle: this.#onIdle,
    });
    this.#fills.set(hex, fill);
    this.#tiers.inBackground(fill.over.finally(() => this.#fills.delete(hex)));
    return fill;
  }

  /** Gives up the copy that somebody has left last, where too many go on already that nobody reads along with. */
  readonly #onIdle = (fill: BlobFill): void => {
    const idle = [...this.#fills.values()].filter(({ isIdle }) => isIdle);
    if (idle.length > MAX_IDLE) fill.giveUp();
  };
}
