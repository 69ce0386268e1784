import type { AbortOptions, BlobPlaces, BlobService, ChunkList, Node } from "@tvix/castore";
import type { Tree } from "./tree-reader.ts";
import {
  BYTES_PER_BATCH,
  type FileStep,
  isSmallFile,
  type NarPart,
  refusal,
  walkSteps,
} from "./walk-steps.ts";
import { writeStep } from "./write-step.ts";
import { NarWriter } from "./writer.ts";

/** Where the contents of a NAR come from, with its directories read. */
export interface PartSources {
  readonly blobService: BlobService;
  readonly tree: Tree;
}

/** Contents of a file from an offset on. */
export interface FilePart {
  readonly step: FileStep;
  readonly offset: number;
}

/** A piece of a NAR whose contents are missing: bytes with gaps in them, or a part of a large file. */
export type PlannedPiece =
  | {
      readonly type: "bytes";
      /** From the start of their buffer on, and how many: the buffer may have been moved to another thread. */
      readonly bytes: Uint8Array;
      readonly length: number;
      /** Offset of the first of them in the NAR. */
      readonly at: number;
      readonly gaps: BlobPlaces | undefined;
      /** What belongs into each of the gaps. */
      readonly contents: readonly FilePart[];
    }
  | ({ readonly type: "stream"; readonly length: number } & FilePart);

/** Options of {@link planNar}. */
export interface PlanOptions {
  /** Which part is planned. Default: all of the NAR. */
  readonly part?: NarPart | undefined;
  /** Returns a buffer of at least so many bytes, for a piece. */
  readonly newBuffer: (bytes: number) => Uint8Array;
  readonly signal: AbortSignal;
}

/**
 * Plans the pieces of a NAR, or of a part of it, in order. All of it is written but the contents. Those before and behind the
 * part are left out as far as they are none of a chunk or small file that is partly in it.
 *
 * @throws StoreError `not_found` for a directory or blob that is missing, `data_loss` for a blob of another size than its node
 *   states
 */
export async function* planNar(
  root: Node,
  { blobService, tree }: PartSources,
  { part, newBuffer, signal }: PlanOptions,
): AsyncGenerator<PlannedPiece, undefined> {
  const { start, end } = part ?? { start: 0, end: Number.POSITIVE_INFINITY };
  const pieces: PlannedPiece[] = [];
  let contents: FilePart[] = [];
  const sink = (bytes: Uint8Array, at: number, gaps: BlobPlaces | undefined) => {
    const behind = contents.splice(gaps?.length ?? 0);
    pieces.push({ type: "bytes", bytes, length: bytes.length, at, gaps, contents });
    contents = behind;
  };
  /** Plans the contents of a large file, of which those chunks are read that are in the part. */
  async function* planLarge(writer: NarWriter, step: FileStep): AsyncGenerator<PlannedPiece> {
    const size = Number(step.file.size);
    const from = Math.min(Math.max(start - writer.offset, 0), size);
    const to = Math.min(Math.max(end - writer.offset, 0), size);
    const chunks = from < to ? await chunksOf(step, blobService, { signal }) : undefined;
    if (chunks === undefined) {
      writer.finish();
      if (from < to) pieces.push({ type: "stream", step, offset: from, length: to - from });
      writer.skipContents(size);
      return;
    }
    const first = chunks.indexAt(from);
    let at = chunks.offsetAt(first);
    if (at > 0) writer.skipContents(at);
    for (let i = first; at < to; i++) {
      if (chunks.sizeAt(i) > writer.room) writer.finish(); // the next buffer is taken when the next piece is asked for
      while (pieces.length > 0) yield pieces.shift()!;
      contents.push({ step, offset: at });
      writer.gap(chunks.digestAt(i), chunks.sizeAt(i));
      at += chunks.sizeAt(i);
    }
    if (at < size) writer.skipContents(size - at);
  }
  let writer: NarWriter | undefined;
  for await (const steps of walkSteps(root, tree, part)) {
    for (const step of steps) {
      if (step.type === "begin") {
        writer = new NarWriter(sink, step, newBuffer);
        continue;
      }
      writer ??= new NarWriter(sink, undefined, newBuffer);
      writeStep(writer, step);
      if (isSmallFile(step) && step.file.size > 0n) {
        contents.push({ step, offset: 0 });
        writer.gap(step.file.digest, Number(step.file.size));
      } else if (step.type === "file" && step.file.size > 0n) {
        yield* planLarge(writer, step);
      }
      while (pieces.length > 0) yield pieces.shift()!;
    }
  }
  writer ??= new NarWriter(sink, undefined, newBuffer); // a part may end before the first step
  writer.finish();
  yield* pieces;
}

/** Returns the chunks of a large file; `undefined` where to read them by themselves is of no advantage. */
async function chunksOf(
  { file: { digest, size }, place }: FileStep,
  blobService: BlobService,
  options: AbortOptions,
): Promise<ChunkList | undefined> {
  if (blobService.readManyInto === undefined) return undefined;
  await using reader = await blobService.open(digest, options);
  if (reader === undefined) throw refusal("not_found", `blob ${digest}`, place, "is missing");
  const { chunks } = reader;
  if (BigInt(chunks.size) !== size) {
    const reason = `has ${chunks.size} bytes, expected ${size}`;
    throw refusal("data_loss", `blob ${digest}`, place, reason);
  }
  for (let i = 0; i < chunks.length; i++) if (chunks.sizeAt(i) > BYTES_PER_BATCH) return undefined;
  return chunks;
}
