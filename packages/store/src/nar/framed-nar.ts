import { createHash } from "node:crypto";
import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  ChunkList,
  ChunkListBuilder,
  type Node,
  rawFrame,
  rawFrameLength,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import type { NarRange } from "./seekable.ts";
import { openTree, type TreeSources } from "./shared-trees.ts";
import { walkSteps } from "./walk-steps.ts";
import { writeStep } from "./write-step.ts";
import { NarWriter } from "./writer.ts";

/** A blob service that stores frames, and tells how long they are. */
type FrameSource = Pick<BlobService, "statMany" | "open"> &
  Required<Pick<BlobService, "frameSizes" | "verifiedFrames">>;

/** Where the frames and directories of a NAR come from. */
export interface FramedNarSources extends TreeSources {
  readonly blobService: FrameSource;
}

/** What is known about a NAR of frames without reading its contents. */
export interface FramedNar {
  /** Length of the NAR in bytes. */
  readonly narSize: number;
  /** Length of the file of frames in bytes. */
  readonly fileSize: number;
  /** Differs where the frames have other contents or lengths, in base64url. */
  readonly tag: string;
}

/** Tells whether a blob service stores frames. */
export function isFrameSource(service: BlobService): service is BlobService & FrameSource {
  return service.frameSizes !== undefined && service.verifiedFrames !== undefined;
}

/**
 * Measures the NAR of a tree as a file of zstd frames: the stored frames of its chunks, and frames of raw blocks for what is
 * between contents. Proves that nothing of the tree is missing. No contents are read.
 *
 * @throws StoreError `not_found` if the root directory or a blob is missing, `data_loss` if a blob has another size than
 *   its node states; whatever the services throw: `data_loss` if a directory below the root or a chunk is missing
 */
export async function measureFramedNar(
  root: Node,
  sources: FramedNarSources,
  options?: AbortOptions,
): Promise<FramedNar> {
  const hash = createHash("sha256");
  let narSize = 0;
  let fileSize = 0;
  for await (const { parts, chunks, sizes } of planParts(root, sources, options)) {
    for (const { framing } of parts) narSize += framing.length;
    narSize += chunks.size;
    fileSize += fileSizeOf({ parts, chunks, sizes });
    hash.update(chunks.bytes).update(sizes);
  }
  return { narSize, fileSize, tag: hash.digest("base64url") };
}

/**
 * Reads a part of the file that {@link measureFramedNar} measures, in pieces that are valid until the next one is asked for.
 * Frames before the part are not read, and each frame is verified before any byte of it is handed out.
 *
 * @throws what {@link measureFramedNar} throws, and `data_loss` for a frame that is damaged
 */
export async function* readFramedNar(
  root: Node,
  sources: FramedNarSources,
  {
    offset = 0,
    length = Number.POSITIVE_INFINITY,
    signal,
    readAhead = () => PLAN_AHEAD,
  }: NarRange = {},
): AsyncGenerator<Uint8Array> {
  const end = offset + length;
  const plans = planParts(root, sources, { signal });
  let at = 0;
  /** Opens the next plan that is in the part, while another one is sent. */
  const openNext = async (): Promise<OpenPlan | undefined> => {
    while (at < end) {
      const { done, value: plan } = await plans.next();
      if (done) return undefined;
      const size = fileSizeOf(plan);
      const [from, to] = [Math.max(offset - at, 0), Math.min(end - at, size)];
      at += size;
      if (from < to) return new OpenPlan(plan, from, to, sources.blobService, { signal });
    }
    return undefined;
  };
  let next: Promise<OpenPlan | undefined> | undefined;
  try {
    for (let plan = await openNext(); plan !== undefined; plan = await (next ?? openNext())) {
      next = readAhead() < PLAN_AHEAD ? undefined : openNext();
      next?.catch(() => undefined); // handled when its turn comes
      yield* plan.read();
    }
  } finally {
    const unread = await next?.catch(() => undefined);
    await unread?.[Symbol.asyncDispose]();
    await plans.return(undefined);
  }
}

/** What is between the contents of two files, or before or behind all of them, and then the chunks of a file. */
interface Part {
  readonly framing: Uint8Array;
  /** How many of the chunks of the plan follow. */
  readonly chunks: number;
}

/** Consecutive parts of a NAR, with their chunks and the lengths of the frames of those. */
interface Plan {
  readonly parts: readonly Part[];
  readonly chunks: ChunkList;
  readonly sizes: Uint32Array;
}

/** Files of a plan: their number, and the bytes and chunks after which it ends. */
const FILES_PER_PLAN = 128;
const BYTES_PER_PLAN = 16 * 1024 * 1024;

/** The next plan is opened while one is sent if so many bytes may be read ahead: about what both of them take. */
const PLAN_AHEAD = 1024 * 1024;

/** Small pieces are gathered up to this length, in bytes; larger ones are handed out as they are. */
const GATHERED = 64 * 1024;
const LARGE = 16 * 1024;

/** A file whose contents follow. */
interface OpenFile {
  readonly framing: Uint8Array;
  readonly digest: B3Digest;
  readonly size: number;
}

/** Plans a NAR in canonical order, a hundred files at a time. */
async function* planParts(
  root: Node,
  { blobService, ...trees }: FramedNarSources,
  options: AbortOptions = {},
): AsyncGenerator<Plan, undefined> {
  options.signal?.throwIfAborted();
  await using tree = openTree(root, trees, options);
  let pieces: Uint8Array[] = [];
  const takeFraming = () => {
    const framing = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    pieces = [];
    return framing;
  };
  const writer = new NarWriter((bytes) => pieces.push(bytes));
  let files: OpenFile[] = [];
  let bytes = 0;
  for await (const steps of walkSteps(root, tree)) {
    for (const step of steps) {
      if (step.type === "begin") continue; // only where a part is walked
      writeStep(writer, step);
      if (step.type !== "file" || step.file.size === 0n) continue;
      const size = Number(step.file.size);
      writer.finish();
      files.push({ framing: takeFraming(), digest: step.file.digest, size });
      writer.skipContents(size);
      bytes += size;
      if (files.length < FILES_PER_PLAN && bytes < BYTES_PER_PLAN) continue;
      yield await planOf(files, undefined, blobService, options);
      files = [];
      bytes = 0;
    }
  }
  writer.finish();
  await tree.readAll(); // the directory service checks the tree as a whole at its end
  yield await planOf(files, takeFraming(), blobService, options);
}

/** Looks up the chunks of files. */
async function planOf(
  files: readonly OpenFile[],
  last: Uint8Array | undefined,
  blobService: FrameSource,
  options: AbortOptions,
): Promise<Plan> {
  const stats = await blobService.statMany(
    files.map(({ digest }) => digest),
    options,
  );
  const list = new ChunkListBuilder(files.length);
  const parts: Part[] = [];
  for (const [i, { framing, digest, size }] of files.entries()) {
    const stat = stats[i];
    if (stat === undefined) throw refusal("not_found", digest, "is missing");
    if (stat.size !== size) {
      throw refusal("data_loss", digest, `has ${stat.size} bytes, expected ${size}`);
    }
    const before = list.length;
    if (stat.chunks === 1) list.push(digest, size);
    else {
      await using reader = await blobService.open(digest, options);
      if (reader === undefined) throw refusal("not_found", digest, "is missing");
      list.append(reader.chunks.bytes);
    }
    parts.push({ framing, chunks: list.length - before });
  }
  if (last !== undefined) parts.push({ framing: last, chunks: 0 });
  const chunks = list.finish();
  return { parts, chunks, sizes: await blobService.frameSizes(chunks, options) };
}

function fileSizeOf({ parts, sizes }: Plan): number {
  let size = 0;
  for (const { framing } of parts) size += rawFrameLength(framing.length);
  for (const frameSize of sizes) size += frameSize;
  return size;
}

/** One frame of a plan: of framing, or of the chunk with an index. */
interface Frame {
  /** Offset in the file of the plan, in bytes. */
  readonly at: number;
  readonly size: number;
  readonly content: Uint8Array | number;
}

/** Lists the frames of a plan that are in a range of its file. */
function framesIn({ parts, sizes }: Plan, from: number, to: number): Frame[] {
  const frames: Frame[] = [];
  let at = 0;
  let chunk = 0;
  const add = (size: number, content: Frame["content"]) => {
    if (at < to && at + size > from) frames.push({ at, size, content });
    at += size;
  };
  for (const { framing, chunks } of parts) {
    add(rawFrameLength(framing.length), framing);
    for (const end = chunk + chunks; chunk < end; chunk++) add(sizes[chunk]!, chunk);
  }
  return frames;
}

/** Reads a range of the file of a plan, the first of its frames at once. */
class OpenPlan implements AsyncDisposable {
  readonly #from: number;
  readonly #to: number;
  readonly #frames: readonly Frame[];
  readonly #batches: AsyncIterator<readonly Uint8Array[]>;
  #first: Promise<IteratorResult<readonly Uint8Array[]>> | undefined;

  constructor(
    plan: Plan,
    from: number,
    to: number,
    blobService: FrameSource,
    options: AbortOptions,
  ) {
    this.#from = from;
    this.#to = to;
    this.#frames = framesIn(plan, from, to);
    const wanted = this.#frames.flatMap(({ content }) =>
      typeof content === "number" ? [content] : [],
    );
    const { ENTRY_BYTES } = ChunkList;
    const entries = plan.chunks.bytes.subarray(
      (wanted[0] ?? 0) * ENTRY_BYTES,
      ((wanted.at(-1) ?? -1) + 1) * ENTRY_BYTES,
    );
    const stored = blobService.verifiedFrames(ChunkList.fromBytes(entries), options);
    this.#batches = stored[Symbol.asyncIterator]();
    this.#first = this.#batches.next();
    this.#first.catch(() => undefined); // handled when it is read
  }

  async *read(): AsyncGenerator<Uint8Array> {
    const gathered = new Gathered();
    try {
      let batch: Iterator<Uint8Array> = [].values();
      for (const { at, size, content } of this.#frames) {
        let frame = typeof content === "number" ? batch.next().value : rawFrame(content);
        if (frame === undefined) {
          batch = ((await (this.#first ?? this.#batches.next())).value ?? []).values();
          this.#first = undefined;
          frame = batch.next().value;
        }
        if (frame?.length !== size) {
          const found = `expected a frame of ${size} bytes, found ${frame?.length ?? "none"}`;
          const message = `Cannot read a NAR of frames: ${found}; it was stored anew`;
          throw new StoreError("aborted", message);
        }
        yield* gathered.add(frame.subarray(Math.max(this.#from - at, 0), this.#to - at));
      }
      yield* gathered.take();
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#first?.catch(() => undefined);
    await this.#batches.return?.();
  }
}

/** Gathers small pieces. */
class Gathered {
  #buffer = Buffer.allocUnsafe(GATHERED);
  #filled = 0;

  /** Returns what is to be handed out, now that a piece follows: nothing, or all up to its end. */
  *add(piece: Uint8Array): Generator<Uint8Array> {
    if (this.#filled + piece.length > GATHERED) yield* this.take();
    if (piece.length > LARGE) {
      yield* this.take();
      yield piece;
      return;
    }
    this.#buffer.set(piece, this.#filled);
    this.#filled += piece.length;
  }

  /** Returns what was gathered. */
  *take(): Generator<Uint8Array> {
    const filled = this.#filled;
    this.#filled = 0;
    if (filled > 0) yield this.#buffer.subarray(0, filled); // only lent
  }
}

function refusal(code: "not_found" | "data_loss", digest: B3Digest, reason: string): StoreError {
  return new StoreError(code, `Cannot read a NAR of frames: blob ${digest} ${reason}`);
}
