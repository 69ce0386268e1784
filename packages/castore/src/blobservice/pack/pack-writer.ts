import { copyBytes } from "../../bytes/byte-string.ts";
import { B3Digest } from "../../model/digest.ts";
import { ChunkList } from "../chunk-list.ts";
import { type ChunkLocation, indexPath } from "./chunk-index.ts";
import { HEADER_LENGTH, markBlob, type RecordHeader, readHeader } from "./format.ts";
import { IndexWriter, type OpenPack } from "./index-writer.ts";
import { listPacks, makePackFolder, type PackWrite, takeBack, writePack } from "./pack-files.ts";
import { payloadChecksum } from "./payload-checksum.ts";

/** Records, one after the other. Chunks among them match their digests. */
export interface Records {
  /** Begins with the records. */
  readonly bytes: Uint8Array;
  /** How many of the bytes are records. */
  readonly length: number;
}

/** A chunk or list that was found damaged or missing. */
export type Lost =
  /** A chunk, and where it should have been; that is `undefined` if it is not in the index. */
  | { readonly chunk: Uint8Array; readonly location: ChunkLocation | undefined }
  /** A blob whose list of chunks is damaged. */
  | { readonly blob: Uint8Array };

/** Chunks, blobs and losses that are committed together. */
export interface CommitGroup {
  /** Chunks that are not stored yet, as far as is known. */
  readonly chunks: readonly Records[];
  /**
   * Blobs that become readable, as records, those of one chunk included unless that is marked in this group. Their chunks are
   * stored, or in this group.
   */
  readonly blobs: readonly Records[];
  /** Chunks and lists to forget. */
  readonly lost: readonly Lost[];
}

/** A blob that was not committed, because a chunk of it is not stored. */
export interface IncompleteBlob {
  /** Its position in the group. They are told in that order. */
  readonly blob: number;
  readonly digest: Uint8Array;
  /** Digest of a chunk of it that is not stored. */
  readonly chunk: Uint8Array;
}

/** The record of a chunk or blob, and its parsed header. */
interface PlacedRecord {
  readonly header: RecordHeader;
  readonly bytes: Buffer;
}

/** A chunk that is not stored yet. */
interface FreshChunk extends PlacedRecord {
  /** Whether a blob uses it, or is it. */
  isUsed: boolean;
}

/** What a group offers that is not stored yet, or not used. */
interface FreshChunks {
  /** By the keys of their digests. */
  readonly absent: Map<string, FreshChunk>;
  /** Chunks that are stored, and become blobs. */
  readonly stored: readonly B3Digest[];
}

interface BlobToCommit extends PlacedRecord {
  /** Its position in the group. */
  readonly position: number;
  /** Its chunks, packed. */
  readonly list: Uint8Array;
  /** Entries of the list that are not yet known to be stored: of a long list, those that were looked up in vain. */
  readonly pending: Uint8Array;
}

/** A blob all of whose chunks are stored or fresh. */
interface CompleteBlob extends PlacedRecord {
  /** Its chunks, packed. */
  readonly list: Uint8Array;
  /** Those of its pending chunks that are stored. */
  readonly stored: readonly B3Digest[];
}

/**
 * Lists of more chunks than this are looked up before the transaction that commits them, in shorter ones of so many
 * look-ups: other processes write in between.
 */
const LOOKUPS_PER_TRANSACTION = 16_384;

/**
 * Writes to packs and their index: a group of chunks and blobs is one write, one fdatasync and one
 * transaction. The transaction is begun first: it keeps other processes from writing to the same pack,
 * and holds the committed length of the pack, so that what a crash leaves behind that length is
 * overwritten by the next commit.
 *
 * Where every blob of a group is one chunk of it, the records tell all once each of them is marked: the transaction does not wait
 * for the disk. After a power failure, opening the store adds to the index what it lacks of the pack.
 */
export class PackWriter implements Disposable {
  readonly #folder: string;
  readonly #maxPackSize: number;
  readonly #index: IndexWriter;

  private constructor(folder: string, maxPackSize: number, index: IndexWriter) {
    this.#folder = folder;
    this.#maxPackSize = maxPackSize;
    this.#index = index;
  }

  /**
   * @param folder the folder of the store
   * @param maxPackSize length in bytes at which a pack is full
   * @throws CastoreError as `openDatabase`
   */
  static async open(folder: string, maxPackSize: number): Promise<PackWriter> {
    await makePackFolder(folder);
    return new PackWriter(folder, maxPackSize, await IndexWriter.open(indexPath(folder)));
  }

  /**
   * Commits a group. Everything is durable when it resolves, but for the blobs that it gives back;
   * nothing is when it rejects.
   */
  async commit({ chunks, blobs, lost }: CommitGroup): Promise<readonly IncompleteBlob[]> {
    const incomplete: IncompleteBlob[] = [];
    const written: PackWrite[] = [];
    const undo = () => {
      for (const write of written) takeBack(this.#folder, write);
    };
    // Ahead of all that is looked up.
    if (lost.length > 0) await this.#index.change(() => this.#forget(lost));
    const offered = chunks.flatMap(recordsIn);
    const wanted = await this.#lookUpLongLists(blobs, offered);
    let isAhead = mayTellAll(offered, wanted);
    const change = async () => {
      const { absent: fresh, stored: blobsAgain } = this.#freshChunks(offered);
      const complete = this.#completeBlobs(wanted, fresh, incomplete);
      const used = [...blobsAgain, ...complete.flatMap(({ stored }) => stored)];
      if (isAhead) {
        isAhead = this.#tellAll(fresh, used);
        if (!isAhead) return false;
        for (const { header, bytes } of fresh.values()) if (!header.isBlob) markBlob(bytes, true);
      }
      const layout = new PackLayout(this.#folder, this.#index.openPack(), this.#maxPackSize);
      const located = Array.from(fresh.values(), ({ header, bytes, isUsed }) => {
        const { pack, offset } = layout.add(bytes);
        const { digest, storedSize, size, codec } = header;
        const checksum = payloadChecksum(bytes.subarray(HEADER_LENGTH));
        const location = {
          pack,
          offset: offset + HEADER_LENGTH,
          storedSize,
          size,
          codec,
          checksum,
        };
        return { digest, location, live: isUsed };
      });
      for (const { header, bytes } of complete) {
        if (header.size > 1 && !this.#index.hasBlob(header.digest)) layout.add(bytes);
      }
      for (const write of layout.writes) {
        await writePack(this.#folder, write);
        written.push(write);
      }
      for (const { digest, location, live } of located) {
        this.#index.addChunk(digest, location, live);
      }
      for (const digest of used) this.#index.useChunk(digest);
      for (const { header, list } of complete) {
        if (header.size > 1) this.#index.addBlob(header.digest, list);
      }
      for (const { pack, size } of layout.writes) this.#index.setPack({ pack, size });
      return true;
    };
    if (isAhead) await this.#index.change(change, { undo, isDurable: false });
    if (!isAhead) {
      incomplete.length = 0;
      await this.#index.change(change, { undo });
    }
    return incomplete;
  }

  [Symbol.dispose](): void {
    this.#index[Symbol.dispose]();
  }

  /**
   * Whether the records of a group tell all that it changes in the index.
   *
   * @param used chunks that are stored, and that it uses
   */
  #tellAll(fresh: ReadonlyMap<string, FreshChunk>, used: readonly B3Digest[]): boolean {
    for (const { isUsed } of fresh.values()) if (!isUsed) return false;
    return used.every((digest) => this.#index.isLive(digest));
  }

  #forget(lost: readonly Lost[]): void {
    for (const what of lost) {
      if ("blob" in what) this.#index.forgetBlob(B3Digest.fromBytes(what.blob));
      else this.#index.forgetChunk(B3Digest.fromBytes(what.chunk), what.location);
    }
  }

  #freshChunks(offered: readonly PlacedRecord[]): FreshChunks {
    const absent = new Map<string, FreshChunk>();
    const stored: B3Digest[] = [];
    for (const { header, bytes } of offered) {
      const { digest, isBlob } = header;
      const { key } = digest;
      const known = absent.get(key);
      if (known !== undefined) known.isUsed ||= isBlob;
      else if (!this.#index.isKnown(digest)) absent.set(key, { header, bytes, isUsed: isBlob });
      else if (isBlob) stored.push(digest);
    }
    return { absent, stored };
  }

  /** Parses the records of blobs, and looks up the chunks of long lists. */
  async #lookUpLongLists(
    blobs: readonly Records[],
    offered: readonly PlacedRecord[],
  ): Promise<readonly BlobToCommit[]> {
    const wanted: BlobToCommit[] = [];
    for (const record of blobs.flatMap(recordsIn)) {
      const list = record.bytes.subarray(HEADER_LENGTH);
      const isLong = record.header.size > LOOKUPS_PER_TRANSACTION;
      const pending = isLong ? await this.#useStoredChunks(list, offered) : list;
      wanted.push({ ...record, position: wanted.length, list, pending });
    }
    return wanted;
  }

  /** Marks the stored chunks of a list as used, and returns the others, packed, up to one that is not in the group. */
  async #useStoredChunks(list: Uint8Array, offered: readonly PlacedRecord[]): Promise<Uint8Array> {
    const keys = new Set(offered.map(({ header }) => header.digest.key));
    const pending: Uint8Array[] = [new Uint8Array(0)];
    let isLost = false;
    const { ENTRY_BYTES } = ChunkList;
    const step = LOOKUPS_PER_TRANSACTION * ENTRY_BYTES;
    for (let from = 0; from < list.length && !isLost; from += step) {
      const part = list.subarray(from, from + step);
      const usePart = () => {
        let last: B3Digest | undefined;
        for (let at = 0; at < part.length && !isLost; at += ENTRY_BYTES) {
          const entry = part.subarray(at, at + ENTRY_BYTES);
          const digest = B3Digest.fromBytes(entry.subarray(0, B3Digest.LENGTH));
          const isKnown = last?.equals(digest) || this.#index.useChunk(digest); // sparse files repeat one
          last = digest;
          if (isKnown) continue;
          last = undefined;
          pending.push(entry);
          isLost = !keys.has(digest.key);
        }
      };
      await this.#index.change(usePart);
    }
    return Buffer.concat(pending);
  }

  /** Returns the blobs all of whose chunks are stored or fresh, and marks those that are fresh as used. */
  #completeBlobs(
    wanted: readonly BlobToCommit[],
    fresh: ReadonlyMap<string, FreshChunk>,
    incomplete: IncompleteBlob[],
  ): CompleteBlob[] {
    const complete: CompleteBlob[] = [];
    for (const { header, bytes, position, list, pending } of wanted) {
      const used: FreshChunk[] = [];
      const stored: B3Digest[] = [];
      let missing: B3Digest | undefined;
      for (let at = 0; at < pending.length && missing === undefined; at += ChunkList.ENTRY_BYTES) {
        const digest = B3Digest.fromBytes(pending.subarray(at, at + B3Digest.LENGTH));
        const chunk = fresh.get(digest.key);
        if (chunk !== undefined) used.push(chunk);
        else if (this.#index.isKnown(digest)) stored.push(digest);
        else missing = digest;
      }
      if (missing === undefined) {
        for (const chunk of used) chunk.isUsed = true;
        complete.push({ header, bytes, list, stored });
      } else {
        const digest = copyBytes(header.digest.bytes);
        incomplete.push({ blob: position, digest, chunk: copyBytes(missing.bytes) });
      }
    }
    return complete;
  }
}

/** Whether the records of a group may tell all that it changes in the index: which chunks there are, each of them a blob. */
function mayTellAll(offered: readonly PlacedRecord[], wanted: readonly BlobToCommit[]): boolean {
  if (offered.length + wanted.length === 0) return false;
  const unmarked = offered.filter(({ header }) => !header.isBlob);
  return unmarked.length <= wanted.length && wanted.every(({ header }) => header.size === 1);
}

/** Removes the marks of records of chunks: none of them is a blob. */
export function unmark(records: Buffer): void {
  for (const { header, bytes } of recordsIn({ bytes: records, length: records.length })) {
    if (header.isBlob) markBlob(bytes, false);
  }
}

function recordsIn({ bytes, length }: Records): PlacedRecord[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, length);
  const records: PlacedRecord[] = [];
  for (let at = 0; at < length; ) {
    const header = readHeader(buffer, at);
    const end = at + HEADER_LENGTH + header.storedSize;
    records.push({ header, bytes: buffer.subarray(at, end) });
    at = end;
  }
  return records;
}

/** A write to one pack, and the length of the pack after it. */
interface PlannedWrite extends PackWrite {
  size: number;
  readonly parts: Uint8Array[];
}

/** Finds a place for records behind what is committed. To be used while nobody else writes to the store. */
class PackLayout {
  readonly writes: PlannedWrite[] = [];
  readonly #folder: string;
  readonly #open: OpenPack | undefined;
  readonly #maxPackSize: number;

  constructor(folder: string, open: OpenPack | undefined, maxPackSize: number) {
    this.#folder = folder;
    this.#open = open;
    this.#maxPackSize = maxPackSize;
  }

  add(record: Uint8Array): { pack: number; offset: number } {
    let write = this.writes.at(-1);
    const open = write ?? this.#open;
    if (open === undefined || (open.size > 0 && open.size + record.length > this.#maxPackSize)) {
      // Packs that the index does not know may be there, as it may have been lost, or a process killed.
      const last = Math.max(open?.pack ?? 0, listPacks(this.#folder).at(-1) ?? 0);
      write = this.#begin({ pack: last + 1, size: 0 }, true);
    } else {
      write ??= this.#begin(open, false);
    }
    const offset = write.size;
    append(write.parts, record);
    write.size += record.length;
    return { pack: write.pack, offset };
  }

  #begin({ pack, size }: OpenPack, isNew: boolean): PlannedWrite {
    const write: PlannedWrite = { pack, isNew, from: size, size, parts: [] };
    this.writes.push(write);
    return write;
  }
}

/** Adds a part, to the last one if it stands behind that in memory. */
function append(parts: Uint8Array[], part: Uint8Array): void {
  const last = parts.at(-1);
  if (last?.buffer === part.buffer && last.byteOffset + last.length === part.byteOffset) {
    parts[parts.length - 1] = new Uint8Array(
      last.buffer,
      last.byteOffset,
      last.length + part.length,
    );
  } else {
    parts.push(part);
  }
}
