import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  type FilledBuffer,
  freeMemory,
  type Node,
  readManyInto,
} from "@tvix/castore";
import { type FilePart, type PartSources, type PlannedPiece, planNar } from "./nar-plan.ts";
import { openTree, type TreeSources } from "./shared-trees.ts";
import { type NarPart, refusal } from "./walk-steps.ts";

/** Where the contents of a NAR come from. */
export interface NarSources extends TreeSources {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** How many pieces of a NAR are read ahead: enough for a lane to have some while this thread reads one itself. */
const PIECES_AHEAD = 6;

/** Lengths of pieces, in bytes. The longest is used of which {@link PIECES_AHEAD} may be held; the shortest if that is none. */
const LONGEST_PIECE = 512 * 1024;
const PIECES: readonly number[] = [LONGEST_PIECE, 256 * 1024, 128 * 1024];

/** How many bytes are read ahead at most, unless the caller says otherwise. */
const READ_AHEAD = PIECES_AHEAD * LONGEST_PIECE;

/** Options of {@link renderNar}. */
export interface RenderOptions extends AbortOptions {
  /**
   * Returns how many bytes of contents may be held, read ahead of who iterates. It is asked again and again: a server
   * bounds what all of its NARs hold together. Two pieces are held in any case. Default: 3 MiB.
   */
  readonly readAhead?: () => number;
}

/**
 * Renders the NAR of a tree, in pieces of up to 512 KiB, or 128 KiB where little may be read ahead, each lent until the next
 * one is asked for. The directories are read by one `getRecursive`. Memory does not depend on the size of the tree, but on
 * its depth and the widest directory. When iterating ends, whatever the reason, no read is left running.
 *
 * @throws StoreError `not_found` if the root directory or a blob is missing, `data_loss` if a blob has another
 *   size than its node states, both naming digest and path; whatever the services throw: `data_loss` if a directory
 *   below the root is missing
 */
export async function* renderNar(
  root: Node,
  sources: NarSources,
  options: RenderOptions = {},
): AsyncGenerator<Uint8Array> {
  options.signal?.throwIfAborted();
  await using tree = openTree(root, sources, options);
  yield* renderPart(root, { blobService: sources.blobService, tree }, options);
  await tree.readAll(); // the directory service checks the tree as a whole at its end
}

/** A piece whose contents are being read. */
interface PieceAhead {
  readonly piece: PlannedPiece;
  /** How many bytes it holds. */
  readonly held: number;
  /** `undefined` where nothing is read ahead. */
  readonly filled: Promise<FilledBuffer> | undefined;
}

/**
 * Renders a part of a NAR, as {@link renderNar} does.
 *
 * @param options.part which part is rendered; nothing before it is read. Default: all of the NAR
 */
export async function* renderPart(
  root: Node,
  sources: PartSources,
  {
    signal: callerSignal,
    part,
    readAhead = () => READ_AHEAD,
  }: RenderOptions & { part?: NarPart } = {},
): AsyncGenerator<Uint8Array> {
  callerSignal?.throwIfAborted();
  const { start, end } = part ?? { start: 0, end: Number.POSITIVE_INFINITY };
  if (start >= end) return;
  const abandon = new AbortController();
  const signal = callerSignal ? AbortSignal.any([callerSignal, abandon.signal]) : abandon.signal;
  const buffers = new PieceBuffers(readAhead);
  const held = () => window.reduce((sum, { held }) => sum + held, 0);
  const isWithin = () => held() + buffers.length <= readAhead();
  const plan = planNar(root, sources, { part, newBuffer: buffers.take, signal });
  const window: PieceAhead[] = [];
  try {
    for (let ended = false; ; ) {
      while (!ended && (window.length === 0 || isWithin())) {
        const { value: piece } = await plan.next();
        ended = piece === undefined;
        if (piece !== undefined)
          window.push(startPiece(piece, sources.blobService, { readAhead, signal }));
      }
      const next = window.shift();
      if (next === undefined) return;
      const { piece, filled } = next;
      callerSignal?.throwIfAborted();
      if (piece.type === "stream") {
        for await (const data of readFile(piece, sources.blobService, { readAhead, signal })) {
          yield data;
          freeMemory([data]);
          callerSignal?.throwIfAborted();
        }
        continue;
      }
      const { at, length } = piece;
      const bytes = await fill(piece, filled, sources.blobService, { readAhead, signal });
      callerSignal?.throwIfAborted();
      const to = Math.min(Math.max(end - at, 0), length);
      const wanted = bytes.subarray(Math.max(start - at, 0), to);
      if (wanted.length > 0) yield wanted;
      buffers.give(bytes);
    }
  } finally {
    abandon.abort(new Error("Nobody reads the NAR any more"));
    await Promise.allSettled(window.map(({ filled }) => filled));
    await plan.return(undefined);
    buffers.free();
  }
}

/** How contents are read. */
interface ReadOptions {
  readonly readAhead: () => number;
  readonly signal: AbortSignal;
}

/** Starts to read what is missing in a piece. */
function startPiece(
  piece: PlannedPiece,
  blobService: BlobService,
  { signal }: ReadOptions,
): PieceAhead {
  if (piece.type === "stream") return { piece, held: 0, filled: undefined };
  const whole = wholeBuffer(piece.bytes);
  const held = whole.length;
  if (piece.gaps === undefined) return { piece, held, filled: undefined };
  const filled = readManyInto(blobService, whole, piece.gaps, { signal });
  filled.catch(() => undefined); // handled when its turn comes
  return { piece, held, filled };
}

/** Returns the buffer of a piece once nothing is missing in it. What could not be read is read again, which tells why. */
async function fill(
  { bytes: planned, gaps, contents }: PlannedPiece & { type: "bytes" },
  filled: Promise<FilledBuffer> | undefined,
  blobService: BlobService,
  options: ReadOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  if (filled === undefined || gaps === undefined) return wholeBuffer(planned);
  const { bytes, unread } = await filled;
  for (const i of unread) {
    const place = gaps.placeIn(bytes, i);
    let at = 0;
    const part = { ...contents[i]!, length: place.length };
    for await (const data of readFile(part, blobService, options)) {
      place.set(data, at);
      at += data.length;
    }
  }
  return bytes;
}

/** Reads a part of a file, and fails unless it has as many bytes. */
async function* readFile(
  { step, offset, length }: FilePart & { readonly length: number },
  blobService: BlobService,
  { readAhead, signal }: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const { digest, size } = step.file;
  const end = offset + length;
  const range = BigInt(length) < size ? { offset, length } : {}; // a read without a range shows if the blob is longer
  const stream = await blobService.read(digest, { ...range, signal, readAhead: readAhead() });
  if (stream === undefined) throw refusal("not_found", `blob ${digest}`, step.place, "is missing");
  let found = offset;
  for await (const data of stream) {
    found += data.length;
    if (found > end) break;
    yield data;
  }
  if (found !== end) {
    const bytes = found > end ? `more than ${end}` : `only ${found}`;
    const reason = `has ${bytes} bytes, expected ${size}`;
    throw refusal("data_loss", `blob ${digest}`, step.place, reason);
  }
}

/** Returns the whole buffer that bytes are in. */
function wholeBuffer({ buffer }: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer as ArrayBuffer);
}

/** Buffers of pieces, used again and again: the system clears all memory that is new. */
class PieceBuffers {
  readonly #readAhead: () => number;
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  /** How many bytes the spare ones and those in use have. */
  #held = 0;

  /** @param readAhead returns how many bytes may be held beside the piece that is written, and the one that was handed out */
  constructor(readAhead: () => number) {
    this.#readAhead = readAhead;
  }

  /** How long the next buffer is, in bytes, unless more has to fit into it. */
  get length(): number {
    const fits = (piece: number) => PIECES_AHEAD * piece <= this.#readAhead();
    return PIECES.find(fits) ?? PIECES.at(-1)!;
  }

  /** Returns a buffer of at least so many bytes. What is in it means nothing. */
  readonly take = (bytes: number): Uint8Array<ArrayBuffer> => {
    const wanted = Math.max(bytes, this.length);
    for (let spare = this.#spare.pop(); spare !== undefined; spare = this.#spare.pop()) {
      if (spare.length >= wanted) return spare;
      this.#free(spare);
    }
    const length = PIECES.findLast((piece) => piece >= wanted) ?? wanted; // few lengths, so that it fits again
    this.#held += length;
    return Buffer.allocUnsafeSlow(length);
  };

  /** Takes back a buffer that nobody uses any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    const isSpare = this.#held <= this.#readAhead() + 2 * this.length;
    if (isSpare) this.#spare.push(buffer);
    else this.#free(buffer);
  }

  /** Frees the buffers that were taken back. */
  free(): void {
    for (const buffer of this.#spare.splice(0)) this.#free(buffer);
  }

  #free(buffer: Uint8Array<ArrayBuffer>): void {
    this.#held -= buffer.length;
    freeMemory([buffer]);
  }
}
