import { statSync } from "node:fs";
import { type FileHandle, open as openFile } from "node:fs/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { copyBytes } from "../../bytes/byte-string.ts";
import type { Database } from "../../disk/sqlite.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { ChunkList } from "../chunk-list.ts";
import { verifyBlob } from "../verify-blob.ts";
import { ChunkIndex, type ChunkLocation } from "./chunk-index.ts";
import { decodeInto } from "./codec.ts";
import { HEADER_LENGTH, isHeader, MAGIC, type RecordHeader, readHeader } from "./format.ts";
import { IndexWriter } from "./index-writer.ts";
import { listPacks, packPath } from "./pack-files.ts";
import { readLocated, type WantedChunk } from "./pack-reader.ts";
import { payloadChecksum } from "./payload-checksum.ts";

/** How much of a pack is read at a time, in bytes. */
const WINDOW_BYTES = 8 * 1024 * 1024;

/** How much of a blob is hashed at a time, in bytes, unless one chunk is longer, and in chunks. */
const HASH_BYTES = 4 * 1024 * 1024;
const HASH_CHUNKS = 4096;

/** A record, and where it stands in its pack. */
interface FoundRecord {
  readonly at: number;
  readonly header: RecordHeader;
  readonly payload: Buffer;
}

/**
 * Fills an index that has no records from the packs of the store, if there are any: it is lost then. Every chunk is
 * verified, and every blob: what is damaged is left out, and so are blobs that need it. Chunks of blobs that were
 * never finished can be read afterwards.
 *
 * @param db a connection to the index, in the transaction that creates it
 * @param onLoss is told what is done, and what is left out
 */
export async function rebuildIndex(
  db: Database,
  folder: string,
  onLoss: (message: string) => void,
  options?: AbortOptions,
): Promise<void> {
  const packs = listPacks(folder);
  if (packs.length === 0) return;
  onLoss(`The index of "${folder}" is gone: a new one is made from the packs`);
  const [known, index] = [new ChunkIndex(db), new IndexWriter(db)];
  for (const pack of packs) {
    const path = packPath(folder, pack);
    await using file = await openFile(path);
    let size = 0;
    for await (const record of recordsOf(file, (at) => onLoss(`"${path}" is damaged at ${at}`))) {
      options?.signal?.throwIfAborted();
      const { header, payload } = record;
      const { digest } = header;
      size = endOf(record);
      if (header.kind === "chunk") {
        if (!index.isKnown(digest)) index.addChunk(digest, locationOf(record, pack), true);
      } else if (!index.hasBlob(digest)) {
        const list = copyBytes(payload); // the window moves on
        const fault = await faultOf(digest, list, (chunks) =>
          contentsOf(chunks, folder, known, options),
        );
        if (fault === undefined) index.addBlob(digest, list);
        else onLoss(`Blob ${digest} is left out: ${fault}`);
      }
    }
    index.setPack({ pack, size });
  }
}

/**
 * Adds to an index the chunks that stand behind what it has of the packs, and are marked as ahead of it: a power failure may
 * have taken their rows. Every chunk is verified. What is behind the first record that is not one of them was never committed.
 *
 * @param db a connection to the index, in a transaction
 */
export async function catchUp(db: Database, folder: string, options?: AbortOptions): Promise<void> {
  const index = new IndexWriter(db);
  const open = index.openPack() ?? { pack: 0, size: 0 };
  for (const pack of listPacks(folder)) {
    if (pack < open.pack) continue;
    const start = pack === open.pack ? open.size : 0;
    const path = packPath(folder, pack);
    const { size: end } = statSync(path);
    if (end <= start) continue;
    await using file = await openFile(path);
    const window = new Window(file, end);
    let size = start;
    for (;;) {
      options?.signal?.throwIfAborted();
      const record = await recordAt(window, size);
      if (!record?.header.isBlob) break;
      const { digest } = record.header;
      if (!index.useChunk(digest)) index.addChunk(digest, locationOf(record, pack), true);
      size = endOf(record);
    }
    if (size > start) index.setPack({ pack, size });
  }
}

function locationOf({ at, header, payload }: FoundRecord, pack: number): ChunkLocation {
  const { storedSize, size, codec } = header;
  const checksum = payloadChecksum(payload);
  return { pack, offset: at + HEADER_LENGTH, storedSize, size, codec, checksum };
}

/** Returns where the next record begins. */
function endOf({ at, payload }: FoundRecord): number {
  return at + HEADER_LENGTH + payload.length;
}

/** What is wrong with a blob; `undefined` if nothing is. */
async function faultOf(
  digest: B3Digest,
  list: Uint8Array,
  contentsOf: (chunks: ChunkList) => AsyncIterable<Uint8Array>,
): Promise<string | undefined> {
  const fail = (found: B3Digest) => dataLoss(`its chunks make up ${found}`);
  try {
    const chunks = ChunkList.fromBytes(list);
    const { size } = chunks;
    for await (const _ of verifyBlob(contentsOf(chunks), { digest, size, fail }));
    return undefined;
  } catch (error) {
    if (!(error instanceof CastoreError) || error.code !== "data_loss") throw error;
    return error.message;
  }
}

/**
 * The contents of chunks, one after the other.
 *
 * @throws CastoreError `data_loss`, from iterating, for one that is not there, or of another length than listed
 */
async function* contentsOf(
  chunks: ChunkList,
  folder: string,
  index: ChunkIndex,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  for (let next = 0; next < chunks.length; ) {
    options?.signal?.throwIfAborted();
    const batch: WantedChunk[] = [];
    for (let bytes = 0; bytes < HASH_BYTES && next < chunks.length; next++) {
      if (batch.length === HASH_CHUNKS) break;
      const { digest, size } = chunks.at(next);
      const location = index.findChunk(digest);
      if (location === undefined) throw dataLoss(`chunk ${digest} is lost`);
      if (location.size !== size) {
        throw dataLoss(`chunk ${digest} has ${location.size} bytes, listed are ${size}`);
      }
      batch.push({ digest, location });
      bytes += size;
    }
    const { pieces, damaged } = await readLocated(folder, batch, {
      as: "contents",
      place: "pool",
    });
    for (const [i, what] of damaged) throw dataLoss(`chunk ${batch[i]!.digest} is ${what}`);
    yield* pieces as Uint8Array[];
  }
}

function dataLoss(message: string): CastoreError {
  return new CastoreError("data_loss", message);
}

/** The records of a pack that are whole. What is between them is told. */
async function* recordsOf(
  file: FileHandle,
  onDamage: (at: number) => void,
): AsyncGenerator<FoundRecord> {
  const window = new Window(file, (await file.stat()).size);
  let damagedAt: number | undefined;
  for (let at = 0; at + HEADER_LENGTH <= window.fileSize; ) {
    const record = await recordAt(window, at);
    if (record === undefined) {
      damagedAt ??= at;
      at = await window.find(MAGIC, at + 1);
      continue;
    }
    if (damagedAt !== undefined) onDamage(damagedAt);
    damagedAt = undefined;
    yield record;
    at = endOf(record);
  }
  if (damagedAt !== undefined) onDamage(damagedAt);
}

async function recordAt(window: Window, at: number): Promise<FoundRecord | undefined> {
  const bytes = await window.read(at, HEADER_LENGTH);
  if (bytes === undefined || !isHeader(bytes, 0)) return undefined;
  const head = Buffer.from(bytes);
  const header = readHeader(head, 0);
  const payload = await window.read(at + HEADER_LENGTH, header.storedSize);
  if (payload === undefined) return undefined;
  if (header.kind === "chunk" && !isChunk(header, payload)) return undefined;
  return { at, header, payload };
}

function isChunk({ codec, size, digest }: RecordHeader, payload: Buffer): boolean {
  if (size > MAX_CHUNK_BYTES) return false;
  const contents = new Uint8Array(size);
  return decodeInto(contents, codec, payload) && blake3Digest(contents).equals(digest);
}

/** The part of a file that was read last. */
class Window {
  readonly fileSize: number;
  readonly #file: FileHandle;
  #start = 0;
  #bytes = Buffer.alloc(0);

  constructor(file: FileHandle, fileSize: number) {
    this.#file = file;
    this.fileSize = fileSize;
  }

  /** Bytes of the file; `undefined` if it ends before. */
  async read(at: number, length: number): Promise<Buffer | undefined> {
    if (at + length > this.fileSize) return undefined;
    if (at < this.#start || at + length > this.#start + this.#bytes.length) {
      const size = Math.min(Math.max(length, WINDOW_BYTES), this.fileSize - at);
      const bytes = Buffer.allocUnsafeSlow(size);
      const { bytesRead } = await this.#file.read(bytes, 0, size, at);
      [this.#start, this.#bytes] = [at, bytes.subarray(0, bytesRead)];
      if (bytesRead < length) return undefined;
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + length);
  }

  /** Where some bytes stand next; the end of the file if they do not. */
  async find(wanted: string, from: number): Promise<number> {
    for (let at = from; at + wanted.length <= this.fileSize; ) {
      const length = Math.min(WINDOW_BYTES, this.fileSize - at);
      const bytes = await this.read(at, length);
      if (bytes === undefined) return this.fileSize;
      const found = bytes.indexOf(wanted, 0, "latin1");
      if (found >= 0) return at + found;
      at += length - wanted.length + 1;
    }
    return this.fileSize;
  }
}
