import type { AbortOptions } from "../../bytes/abort-options.ts";
import { equalBytes } from "../../bytes/byte-string.ts";
import { mapInParallel } from "../../bytes/parallel.ts";
import type { B3Digest } from "../../model/digest.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runTask } from "../../worker/lanes.ts";
import type { SlabPool } from "../../worker/slab-pool.ts";
import type { BlobService, FrameBatch } from "../blob-service.ts";
import { ChunkList } from "../chunk-list.ts";
import { expectFrameEach, putFramesByContents, putLists } from "../frames.ts";
import { HEADER_LENGTH } from "./format.ts";
import type { GroupCommit } from "./group-commit.ts";
import type { PackIngest } from "./pack-ingest.ts";
import { type ChunkRun, prepareFrames } from "./prepare.ts";
import { type AddedContents, UploadHashes } from "./upload-hashes.ts";

const PREPARE_FRAMES: Task<typeof prepareFrames> = taskOf(
  import.meta.url,
  "prepare",
  "prepareFrames",
);

/** Most frames that go to a lane together: their records fit. */
const MAX_FRAMES = 1024;

/** Frames of no more contents, in bytes, are verified in this thread: to wake another takes longer. */
const INLINE_BYTES = 64 * 1024;

/** How many groups are prepared at the same time. */
const GROUPS_AT_A_TIME = 4;

/** Frames that go to a lane together. */
interface Group {
  /** The first of them, in the batch. */
  readonly first: number;
  count: number;
  bytes: number;
  /** Length of their contents in bytes. */
  contentsBytes: number;
  readonly blobs: ChunkRun[];
  /** Takes their contents, where they are a part of an upload that is hashed. */
  contents?: AddedContents;
}

/** Has lanes verify chunks that are compressed already, and hands them on to be committed as they are. */
export class PackFrameStore implements Disposable {
  readonly #service: BlobService;
  readonly #ingest: PackIngest;
  readonly #commits: GroupCommit;
  readonly #slabs: SlabPool;
  /** Length of a slab in bytes. */
  readonly #slabBytes: number;
  readonly #uploads: UploadHashes;
  /** How many calls of `put` have not returned. */
  #puts = 0;

  /** @param service commits blobs whose chunks are stored, and takes contents that are too long for a slab */
  constructor(service: BlobService, ingest: PackIngest, commits: GroupCommit) {
    this.#service = service;
    this.#ingest = ingest;
    this.#commits = commits;
    const count = laneCount() + 1;
    this.#slabs = ingest.newSlabs(count, 2 * count);
    this.#slabBytes = ingest.slabBytes;
    this.#uploads = new UploadHashes(ingest.newSlabs(count, 2 * count));
  }

  /** Stores chunks and blobs of them, as `BlobService.putFrames` says. */
  async put(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    const { chunks, frames, blobs } = batch;
    expectFrameEach(chunks, frames);
    if (frames.some(({ length }) => length > this.#ingest.contentsBytes - HEADER_LENGTH)) {
      await putFramesByContents(this.#service, batch, options);
      return;
    }
    const groups = this.#group(batch);
    const rest = addRuns(groups, chunks, blobs);
    this.#puts += 1;
    try {
      await this.#addToUpload(batch, groups, options);
      const stored = await mapInParallel(
        groups,
        GROUPS_AT_A_TIME,
        (group, options) => this.#putGroup(batch, group, options),
        options,
      );
      if (this.#puts === 1) this.#commits.flush(); // nobody else's chunks are to be expected
      await Promise.all(stored.flat());
    } finally {
      this.#puts -= 1;
      for (const { contents } of groups) void contents?.end(); // those that were not decoded
    }
    await putLists(this.#service, rest, options);
  }

  /** Ends an upload. Returns whether all chunks of the blob were parts of it, and were seen to make up the blob. */
  async proves(
    digest: B3Digest,
    chunks: ChunkList,
    upload: Uint8Array | undefined,
  ): Promise<boolean> {
    return upload !== undefined && (await this.#uploads.prove(upload, digest, chunks));
  }

  [Symbol.dispose](): void {
    this.#uploads[Symbol.dispose]();
  }

  /** Divides frames; those of an upload so that their contents fit into a slab. */
  #group({ chunks, frames, part }: FrameBatch): Group[] {
    const mostContents = part === undefined ? Number.POSITIVE_INFINITY : this.#slabBytes;
    const groups: Group[] = [];
    for (const [i, { length }] of frames.entries()) {
      const size = chunks.sizeAt(i);
      let group = groups.at(-1);
      const fits =
        group &&
        group.count < MAX_FRAMES &&
        group.bytes + length <= this.#ingest.contentsBytes &&
        group.contentsBytes + size <= mostContents;
      if (group === undefined || !fits) {
        group = { first: i, count: 0, bytes: 0, contentsBytes: 0, blobs: [] };
        groups.push(group);
      }
      group.count += 1;
      group.bytes += length;
      group.contentsBytes += size;
    }
    return groups;
  }

  /** Has the contents of groups hashed, if they are a part of an upload. */
  async #addToUpload(
    { chunks, part }: FrameBatch,
    groups: readonly Group[],
    options?: AbortOptions,
  ): Promise<void> {
    if (part === undefined) return;
    if (groups.some(({ contentsBytes }) => contentsBytes > this.#slabBytes)) return;
    const upload = await this.#uploads.enter(part, chunks.size, options);
    if (upload === undefined) return;
    for (const group of groups) group.contents = upload.add(entriesOf(chunks, group));
  }

  async #putGroup(
    batch: FrameBatch,
    group: Group,
    options?: AbortOptions,
  ): Promise<readonly Promise<void>[]> {
    const contents = await group.contents?.takeSlab(options);
    try {
      const stored = await this.#prepareGroup(batch, group, contents, options);
      if (contents !== undefined) {
        await group.contents!.end(new Uint8Array(contents, 0, group.contentsBytes));
      }
      return stored;
    } finally {
      if (contents !== undefined) {
        await group.contents!.end(); // changes nothing if they were handed over
        this.#uploads.give(contents);
      }
    }
  }

  /** @param contents receives the contents */
  async #prepareGroup(
    batch: FrameBatch,
    group: Group,
    contents: SharedArrayBuffer | undefined,
    options?: AbortOptions,
  ): Promise<readonly Promise<void>[]> {
    const slab = await this.#slabs.take(options);
    try {
      const frames = batch.frames.slice(group.first, group.first + group.count);
      const { store, contentsBytes: recordsAt } = this.#ingest;
      let at = recordsAt;
      for (const frame of frames) {
        at += HEADER_LENGTH;
        new Uint8Array(slab, at, frame.length).set(frame);
        at += frame.length;
      }
      const lengths = Uint32Array.from(frames, ({ length }) => length);
      const chunks = entriesOf(batch.chunks, group);
      const task = { store, slab, recordsAt, chunks, lengths, blobs: group.blobs, contents };
      const isSmall = group.contentsBytes <= INLINE_BYTES;
      const where = isSmall ? { here: prepareFrames, isNext: true } : {};
      const records = await runTask(PREPARE_FRAMES, task, where);
      const check = () => options?.signal?.throwIfAborted();
      return await this.#ingest.commit(slab, records, { check });
    } finally {
      this.#slabs.give(slab);
    }
  }
}

/** The chunks of a group, packed. */
function entriesOf({ bytes }: ChunkList, { first, count }: Group): Uint8Array {
  const { ENTRY_BYTES } = ChunkList;
  return bytes.slice(first * ENTRY_BYTES, (first + count) * ENTRY_BYTES);
}

/** Adds each blob to the group that has its chunks in a row, behind those of the blobs before it. Returns the others. */
function addRuns(
  groups: readonly Group[],
  all: ChunkList,
  blobs: FrameBatch["blobs"],
): FrameBatch["blobs"] {
  if (blobs.length === 0) return blobs;
  const { ENTRY_BYTES } = ChunkList;
  /** Where each chunk is first, by digest. */
  const firsts = new Map<string, { readonly group: Group; readonly at: number }>();
  for (const group of groups) {
    for (let i = 0; i < group.count; i++) {
      const { key } = all.digestAt(group.first + i);
      if (!firsts.has(key)) firsts.set(key, { group, at: i });
    }
  }
  return blobs.filter(({ digest, chunks }) => {
    const { bytes, length: count } = chunks;
    const found = count > 1 ? firsts.get(chunks.digestAt(0).key) : undefined;
    if (found === undefined) return true;
    const { group, at: first } = found;
    const last = group.blobs.at(-1);
    const isBehind = last === undefined || last.first + last.count <= first;
    if (!isBehind || first + count > group.count) return true;
    const at = (group.first + first) * ENTRY_BYTES;
    if (!equalBytes(all.bytes.subarray(at, at + bytes.length), bytes)) return true;
    group.blobs.push({ digest: digest.bytes.slice(), first, count });
    return false;
  });
}
