import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { B3Digest } from "../../digest.ts";
import type { AbortOptions } from "../../options.ts";
import {
  beginWrite,
  type DatabaseFormat,
  openDatabase,
  syncFolder,
} from "../../sqlite/database.ts";
import { indexPath } from "./chunk-index.ts";
import { decodeChunk } from "./codec.ts";
import {
  decodeChunkList,
  HEADER_LENGTH,
  isHeader,
  MAGIC,
  type RecordHeader,
  readHeader,
} from "./format.ts";
import { IndexWriter } from "./index-writer.ts";
import { listPacks, packPath } from "./pack-files.ts";

/** How much of a pack is read at a time, and how much is committed together, in bytes. */
const WINDOW_BYTES = 8 * 1024 * 1024;

/** Chunks are never longer: twice the largest average that is offered. */
const MAX_CHUNK_BYTES = 8 * 1024 * 1024;

/** "TvxR": what processes that would make the same index wait for. */
const LOCK: DatabaseFormat = {
  applicationId: 0x54767852,
  version: 1,
  schema: "CREATE TABLE lock (id INTEGER PRIMARY KEY)",
};

/** A record, and where it stands in its pack. */
interface FoundRecord {
  readonly at: number;
  readonly header: RecordHeader;
  readonly payload: Buffer;
}

/**
 * Makes the index anew from the packs of a store whose index is gone; does nothing if it is there, or there are no
 * packs. Every chunk is verified; what is damaged is left out, and so are blobs that need it. Chunks of blobs that
 * were never finished can be read afterwards.
 *
 * @param onLoss is told what is done, and what is left out
 * @throws CastoreError `unavailable` while another process does the same for longer than 30 seconds
 */
export async function rebuildLostIndex(
  folder: string,
  onLoss: (message: string) => void,
  options?: AbortOptions,
): Promise<void> {
  const path = indexPath(folder);
  if (existsSync(path) || listPacks(folder).length === 0) return;
  const lockPath = join(folder, "rebuild.sqlite");
  const lock = await openDatabase(lockPath, LOCK, options);
  try {
    await beginWrite(lock, options);
    if (existsSync(path)) return; // another process was first
    onLoss(`The index of "${folder}" is gone: a new one is made from the packs`);
    // The log of the index that is gone must not be taken for that of the new one.
    for (const suffix of ["-wal", "-shm"]) await rm(path + suffix, { force: true });
    const temporary = join(folder, `${randomUUID()}.sqlite`);
    try {
      await indexPacks(folder, temporary, onLoss, options);
      await rename(temporary, path);
      syncFolder(folder);
    } finally {
      await rm(temporary, { force: true });
    }
  } finally {
    lock.close();
    await rm(lockPath, { force: true });
  }
}

async function indexPacks(
  folder: string,
  indexFile: string,
  onLoss: (message: string) => void,
  options?: AbortOptions,
): Promise<void> {
  using index = await IndexWriter.open(indexFile);
  for (const pack of listPacks(folder)) {
    const path = packPath(folder, pack);
    await using file = await open(path);
    let batch: FoundRecord[] = [];
    let bytes = 0;
    let end = 0;
    const commit = async () => {
      const records = batch;
      [batch, bytes] = [[], 0];
      const size = end;
      await index.change(
        () => {
          for (const record of records) addRecord(index, pack, record, (what) => onLoss(what));
          index.setPack({ pack, size });
        },
        () => undefined,
      );
    };
    for await (const record of recordsOf(file, (at) => onLoss(`"${path}" is damaged at ${at}`))) {
      options?.signal?.throwIfAborted();
      batch.push(record);
      bytes += record.payload.length;
      end = record.at + HEADER_LENGTH + record.payload.length;
      if (bytes >= WINDOW_BYTES) await commit();
    }
    await commit();
  }
}

function addRecord(
  index: IndexWriter,
  pack: number,
  { at, header, payload }: FoundRecord,
  onLoss: (message: string) => void,
): void {
  const { digest, codec, storedSize, size } = header;
  if (header.kind === "chunk") {
    if (index.isKnown(digest)) return;
    const offset = at + HEADER_LENGTH;
    index.addChunk(digest, { pack, offset, storedSize, size, codec }, true);
    return;
  }
  const chunks = decodeChunkList(payload);
  const missing = chunks.find(({ digest }) => !index.isKnown(digest));
  if (missing === undefined) index.addBlob(digest, chunks);
  else onLoss(`Blob ${digest} is left out: chunk ${missing.digest} is lost`);
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
    at += HEADER_LENGTH + record.payload.length;
  }
  if (damagedAt !== undefined) onDamage(damagedAt);
}

async function recordAt(window: Window, at: number): Promise<FoundRecord | undefined> {
  const bytes = await window.read(at, HEADER_LENGTH);
  if (bytes === undefined || !isHeader(bytes, 0)) return undefined;
  const header = readHeader(Buffer.from(bytes), 0);
  const payload = await window.read(at + HEADER_LENGTH, header.storedSize);
  if (payload === undefined) return undefined;
  if (header.kind === "chunk" && !isChunk(header, payload)) return undefined;
  return { at, header, payload };
}

function isChunk({ codec, size, digest }: RecordHeader, payload: Buffer): boolean {
  if (size > MAX_CHUNK_BYTES) return false;
  const data = decodeChunk({ codec, payload: new Uint8Array(payload) }, size);
  return data?.length === size && B3Digest.of(data).equals(digest);
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
