import { LRUCache } from "lru-cache";

/** How many things are watched. */
const MAX_WATCHED = 1024;

interface Stream {
  /** Where the next read begins if reads are sequential. */
  next: number;
  /** How far to read ahead; 0 as long as reads are not sequential. */
  window: number;
  /** Up to where was read ahead. */
  ahead: number;
}

/** Options of {@link ReadPattern}. */
export interface ReadPatternOptions {
  /** The first window, which doubles with every sequential read. */
  readonly first: number;
  readonly most: number;
  /** By how much a read may miss the end of the one before it. */
  readonly tolerance: number;
}

/** Tells how far to read ahead of who reads: nothing for random reads, twice as much with each sequential one. */
export class ReadPattern {
  readonly #options: ReadPatternOptions;
  readonly #streams = new LRUCache<number, Stream>({ max: MAX_WATCHED });

  constructor(options: ReadPatternOptions) {
    this.#options = options;
  }

  /**
   * Notes a read of something, and returns the part behind it to read ahead; `undefined` for none now.
   *
   * @param id what is read
   */
  note(id: number, start: number, end: number): { from: number; to: number } | undefined {
    const { first, most, tolerance } = this.#options;
    const stream = this.#streams.get(id) ?? { next: 0, window: 0, ahead: 0 };
    const isSequential = start >= stream.next - tolerance && start <= stream.next + tolerance;
    if (!isSequential) {
      this.#streams.set(id, { next: end, window: 0, ahead: 0 });
      return undefined;
    }
    stream.next = Math.max(stream.next, end);
    stream.window = Math.min(Math.max(stream.window * 2, first), most);
    this.#streams.set(id, stream);
    const from = Math.max(stream.ahead, stream.next);
    const to = stream.next + stream.window;
    if (to - from < stream.window / 2) return undefined; // in larger steps
    stream.ahead = to;
    return { from, to };
  }
}
