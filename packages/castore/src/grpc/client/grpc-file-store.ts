import { randomBytes } from "node:crypto";
import type { BlobService } from "../../blobservice/blob-service.ts";
import { ChunkList, ChunkListBuilder } from "../../blobservice/chunk-list.ts";
import { ContentsFileStore } from "../../blobservice/contents-file-store.ts";
import { isRead, SlabFileBatch } from "../../blobservice/file-batch.ts";
import {
  FEW_FILES,
  type FileBatch,
  type FileStore,
  type LargeFile,
  type PutFileOptions,
} from "../../blobservice/file-store.ts";
import { type Piece, PiecewiseFile } from "../../blobservice/piecewise-file.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { ByteBudget } from "../../bytes/byte-budget.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE } from "../../chunking/chunker.ts";
import type { SourceFile } from "../../disk/source-file.ts";
import { B3Digest } from "../../model/digest.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runTask } from "../../worker/lanes.ts";
import { SlabPool } from "../../worker/slab-pool.ts";
import { framesRequest, type GrpcChunkBatch } from "./grpc-chunk-batch.ts";
import type * as lane from "./prepare-frames.ts";
import { compressChunks, cutFiles, cutPiece } from "./prepare-frames.ts";

const CUT_FILES: Task<typeof lane.cutFiles> = taskOf(import.meta.url, "prepare-frames", "cutFiles");
const CUT_PIECE: Task<typeof lane.cutPiece> = taskOf(import.meta.url, "prepare-frames", "cutPiece");
const COMPRESS_CHUNKS: Task<typeof lane.compressChunks> = taskOf(
  import.meta.url,
  "prepare-frames",
  "compressChunks",
);

/** Length of a batch, and of a piece of a large file, in bytes. */
const CONTENTS_BYTES = 2 * 1024 * 1024;

/** Room for frames in a slab, in bytes: chunks that cannot be compressed fit. */
const FRAMES_BYTES = CONTENTS_BYTES + 64 * 1024;

/** How many batches, and pieces, are under way for each lane, and for this thread, until they are compressed. */
const BATCHES_PER_THREAD = 2;

/** How many bytes of frames are sent, or wait until the server has stored them. */
const SENT_BYTES = 4 * 1024 * 1024;

/** Chunks of no more than this, in bytes, are compressed in this thread: a trip to a lane takes as long, and its start longer. */
const INLINE_BYTES = 64 * 1024;

/** Level of zstd: the next ones take twice as long for a tenth fewer bytes. */
const DEFAULT_LEVEL = 1;

/** A blob of several chunks. */
interface CutBlob {
  readonly digest: B3Digest;
  readonly chunks: ChunkList;
}

/** Frames on their way to the server. */
interface SentFrames {
  /** What {@link framesRequest} returned. */
  readonly request: Uint8Array;
  /** Length of the frames in bytes. */
  readonly bytes: number;
}

/** Chunks in a slab, and the blobs that they make up. */
interface SlabChunks {
  readonly slab: SharedArrayBuffer;
  /** The chunks in the order of the contents. */
  readonly chunks: ChunkList;
  /** Blobs of several chunks. */
  readonly blobs: readonly CutBlob[];
  /** What part of a long file the chunks are. */
  readonly part?: FilePart;
}

/** A part of a long file. */
interface FilePart {
  readonly upload: FileUpload;
  readonly offset: number;
  /** Resolves when the parts before it are being sent, or need not be. */
  readonly isNext: Promise<void>;
  /** To be called when it is being sent, or need not be. */
  readonly end: () => void;
}

/** A long file on its way to the server, which hashes it as its parts come. */
class FileUpload {
  readonly #name: Uint8Array = randomBytes(16);
  #isWhole = true;
  #last: Promise<void> = Promise.resolve();

  /** Name of the upload; `undefined` if the server did not get all parts of it. */
  get whole(): Uint8Array | undefined {
    return this.#isWhole ? this.#name : undefined;
  }

  /** Begins the next part. */
  begin(offset: number): FilePart {
    const isNext = this.#last;
    const { promise, resolve: end } = Promise.withResolvers<void>();
    this.#last = isNext.then(() => promise);
    return { upload: this, offset, isNext, end };
  }

  /** Notes that the server has some of the chunks already: what is not sent is not hashed. */
  leaveGap(): void {
    this.#isWhole = false;
  }
}

/**
 * Stores files at a server that takes frames: lanes read, hash and cut them, the server is asked which chunks it lacks, and
 * lanes compress those. Any other server gets their contents.
 */
export class GrpcFileStore implements FileStore {
  readonly parallelism: number = (laneCount() + 1) * BATCHES_PER_THREAD;
  readonly batchBytes: number = CONTENTS_BYTES;
  readonly #service: BlobService;
  readonly #batch: GrpcChunkBatch;
  readonly #contents: ContentsFileStore;
  readonly #smallSlabs = slabsFor(this.parallelism);
  readonly #pieceSlabs = slabsFor(this.parallelism);
  readonly #sent = new ByteBudget(SENT_BYTES);

  constructor(service: BlobService, batch: GrpcChunkBatch) {
    this.#service = service;
    this.#batch = batch;
    this.#contents = new ContentsFileStore(service);
  }

  async putSmall(
    paths: readonly string[],
    options: PutFileOptions & { isNext?: boolean } = {},
  ): Promise<FileBatch> {
    if (!(await this.#batch.takesFrames(options))) {
      return await this.#contents.putSmall(paths, options);
    }
    const slabs = this.#smallSlabs;
    const slab = await slabs.take(options);
    try {
      const task = { paths, slab, contentsBytes: CONTENTS_BYTES };
      const { files, chunks, counts } = await runTask(CUT_FILES, task, {
        here: cutFiles,
        isNext: options.isNext || paths.length <= FEW_FILES,
      });
      const list = ChunkList.fromBytes(chunks);
      const blobs = blobsOf(files, list, counts);
      const { compressed, stored } = this.#store({ slab, chunks: list, blobs }, options);
      const hasEmpty = counts.includes(0);
      const all = hasEmpty ? Promise.all([stored, this.#storeEmpty(options)]) : stored;
      return new SlabFileBatch(slab, files, {
        stored: all.then(() => undefined),
        release: slabs.giveAfter(slab, compressed),
      });
    } catch (error) {
      slabs.give(slab);
      throw error;
    }
  }

  async putLarge(file: SourceFile, options?: PutFileOptions): Promise<LargeFile> {
    try {
      if (!(await this.#batch.takesFrames(options))) return this.#contents.putLarge(file, options);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
    const upload = new FileUpload();
    return new PiecewiseFile(file, {
      readPiece: (position) => this.#readPiece(file.fd, position, upload, options),
      commitBlob: (digest, chunks) =>
        this.#service.putList(digest, chunks, { signal: options?.signal, upload: upload.whole }),
    });
  }

  async #readPiece(
    fd: number,
    position: number,
    upload: FileUpload,
    options?: PutFileOptions,
  ): Promise<Piece> {
    const slabs = this.#pieceSlabs;
    const slab = await slabs.take(options);
    try {
      const task = {
        fd,
        position,
        slab,
        contentsBytes: CONTENTS_BYTES,
        averageChunkSize: DEFAULT_AVERAGE_CHUNK_SIZE,
      };
      const { chunks: list, ...read } = await runTask(CUT_PIECE, task, {
        here: cutPiece,
        isShort: true, // where the next piece begins is known when this one is cut
      });
      const chunks = ChunkList.fromBytes(list);
      const part = upload.begin(position);
      const { compressed, stored } = this.#store({ slab, chunks, blobs: [], part }, options);
      stored.catch(() => undefined); // handled where it is awaited
      return {
        ...read,
        contents: new Uint8Array(slab, 0, read.length),
        prepared: Promise.resolve({ list, stored: [stored] }),
        release: slabs.giveAfter(slab, compressed),
      };
    } catch (error) {
      slabs.give(slab);
      throw error;
    }
  }

  /**
   * Stores the chunks that the server lacks. The slab is not used any more once they are `compressed`: the next batch is read
   * while the server works on this one.
   */
  #store(
    cut: SlabChunks,
    options?: PutFileOptions,
  ): { compressed: Promise<unknown>; stored: Promise<void> } {
    const compressed = this.#compress(cut, options).finally(cut.part?.end);
    return { compressed, stored: compressed.then((batch) => batch && this.#send(batch, options)) };
  }

  /** Compresses the chunks that the server lacks, and waits for room for them; `undefined` if it lacks nothing. */
  async #compress(
    { slab, chunks, blobs, part }: SlabChunks,
    options?: PutFileOptions,
  ): Promise<SentFrames | undefined> {
    const digests = [
      ...Array.from(chunks, ({ digest }) => digest),
      ...blobs.map(({ digest }) => digest),
    ];
    const present = await this.#service.hasMany(digests, options);
    const missing = new ChunkListBuilder();
    const sent = new Set<string>();
    const starts: number[] = [];
    let at = 0;
    for (let i = 0; i < chunks.length; i++) {
      const { digest, size } = chunks.at(i);
      if (!present[i] && !sent.has(digest.key)) {
        sent.add(digest.key);
        missing.push(digest, size);
        starts.push(at);
      }
      at += size;
    }
    const missingBlobs = blobs.filter((_, i) => !present[chunks.length + i]);
    const list = missing.finish();
    options?.onNewBytes?.(list.size);
    if (list.length < chunks.length) part?.upload.leaveGap();
    if (list.length + missingBlobs.length === 0) return undefined;
    const lengths = Uint32Array.from(list, ({ size }) => size);
    const compressing = {
      slab,
      starts: Uint32Array.from(starts),
      lengths,
      framesAt: CONTENTS_BYTES,
      level: options?.zstdLevel ?? DEFAULT_LEVEL,
    };
    const sizes =
      list.length > 0
        ? await runTask(COMPRESS_CHUNKS, compressing, {
            here: compressChunks,
            isNext: list.size <= INLINE_BYTES,
          })
        : new Uint32Array(0);
    let end = CONTENTS_BYTES;
    const frames = Array.from(sizes, (size) => {
      end += size;
      return new Uint8Array(slab, end - size, size);
    });
    await part?.isNext; // parts that have room must not wait at the server for one that has none
    const bytes = end - CONTENTS_BYTES;
    await this.#sent.take(bytes, options);
    const upload = part?.upload.whole;
    const request = framesRequest({
      chunks: list,
      frames,
      blobs: missingBlobs,
      part: upload && { upload, offset: part!.offset },
    });
    return { request, bytes };
  }

  async #send({ request, bytes }: SentFrames, options?: PutFileOptions): Promise<void> {
    try {
      await this.#batch.sendFrames(request, options);
    } finally {
      this.#sent.release(bytes);
    }
  }

  async #storeEmpty(options: AbortOptions): Promise<void> {
    await this.#service.putMany([new Uint8Array(0)], options);
  }
}

/** Makes a pool for batches, or for pieces. As many slabs are kept as both use together: they share those that are spare. */
function slabsFor(parallelism: number): SlabPool {
  return new SlabPool(CONTENTS_BYTES + FRAMES_BYTES, parallelism, 2 * parallelism);
}

/** The blobs of several chunks among files that were read and cut. */
function blobsOf(
  { digests, outcomes }: { digests: Uint8Array; outcomes: Uint8Array },
  chunks: ChunkList,
  counts: Uint32Array,
): CutBlob[] {
  const blobs: CutBlob[] = [];
  let [next, at] = [0, 0];
  for (let i = 0; i < outcomes.length; i++) {
    if (!isRead(outcomes[i]!)) continue;
    const count = counts[next++]!;
    if (count > 1) {
      const digest = B3Digest.fromBytes(
        digests.slice(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH),
      );
      const { ENTRY_BYTES } = ChunkList;
      const list = chunks.bytes.slice(at * ENTRY_BYTES, (at + count) * ENTRY_BYTES);
      blobs.push({ digest, chunks: ChunkList.fromBytes(list) });
    }
    at += count;
  }
  return blobs;
}
