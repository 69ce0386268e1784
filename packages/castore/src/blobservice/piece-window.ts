import { copyBytes } from "../bytes/byte-string.ts";

/** How many bytes a window has at most. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** How many bytes all windows that share a space have at most, but that each has a piece at least. */
const ALL_WINDOWS_BYTES = 16 * 1024 * 1024;

/** How many bytes a piece has at most. */
const PIECE_BYTES = 512 * 1024;

/** What several windows have together. */
export class WindowSpace {
  bytes = 0;

  get isFull(): boolean {
    return this.bytes > ALL_WINDOWS_BYTES;
  }
}

/** Some bytes of a stream, and where they begin and end. */
export interface Piece {
  readonly start: number;
  readonly end: number;
  readonly data: Uint8Array;
}

/** Holds what came last of a stream. */
export class PieceWindow {
  readonly #space: WindowSpace;
  readonly #pieces: Piece[] = [];
  #bytes = 0;
  #end = 0;

  constructor(space: WindowSpace) {
    this.#space = space;
  }

  /** Where it begins. */
  get start(): number {
    return this.#pieces[0]?.start ?? this.#end;
  }

  /** Where it ends: how much has come. */
  get end(): number {
    return this.#end;
  }

  /**
   * Adds a copy of what comes next, and drops what there is no room for any more, and what nobody needs.
   *
   * @param isPassed whether nobody needs what ends at a position
   */
  add(bytes: Uint8Array, isPassed: (end: number) => boolean): void {
    for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
      const data = copyBytes(bytes.subarray(from, from + PIECE_BYTES));
      const start = this.#end;
      this.#end += data.length;
      this.#pieces.push({ start, end: this.#end, data });
      this.#bytes += data.length;
      this.#space.bytes += data.length;
    }
    while (this.#pieces.length > 1) {
      const { start, end } = this.#pieces[0]!;
      const isTooLong = this.#bytes > WINDOW_BYTES || this.#space.isFull;
      // From the beginning on, it serves whoever comes later too.
      if (!isTooLong && (start === 0 || !isPassed(end))) break;
      this.#drop();
    }
  }

  /** The piece with the byte at a position, until something is added; `undefined` if it does not have that. */
  at(position: number): Piece | undefined {
    const piece = this.#pieces.find(({ end }) => position < end);
    return piece !== undefined && piece.start <= position ? piece : undefined;
  }

  /** Drops everything. */
  clear(): void {
    while (this.#pieces.length > 0) this.#drop();
  }

  #drop(): void {
    const piece = this.#pieces.shift()!;
    this.#bytes -= piece.data.length;
    this.#space.bytes -= piece.data.length;
  }
}
