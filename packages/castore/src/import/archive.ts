import { open } from "node:fs/promises";
import type { BlobService } from "../blobservice/blob-service.ts";
import { untilAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { compressionOf, decompress, MAGIC_LENGTH } from "../compression/decompress.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import type { Node } from "../model/node.ts";
import { ArchiveTree } from "./archive-tree.ts";
import { ContentsStore } from "./contents-store.ts";
import { fileError, noSuchFile } from "./file-error.ts";
import type { ImportProgress } from "./fs.ts";
import { type IngestEntry, ingestEntries } from "./ingest-entries.ts";
import { readTar } from "./tar/reader.ts";

/** Options of {@link importArchive}. */
export interface ImportArchiveOptions extends AbortOptions {
  /** Is told running totals after each member and each piece of a file. Default: nobody. */
  onProgress?: (progress: ImportProgress) => void;
}

/**
 * Stores what is in a tar archive as a folder, as if it was unpacked and imported. The archive may be compressed by
 * gzip, xz, zstd or bzip2, which its first bytes tell, and is read once. Kept are names, contents, symlink targets and
 * whether the owner may execute a file. An archive without members is an empty folder.
 *
 * Where members replace one another, the last one wins, as with GNU tar. Refused are members outside of the archive's
 * root (`..`, absolute paths), below a symlink or a file, and in place of a folder with entries; hard links to what did
 * not come before them; devices and fifos.
 *
 * In memory are some megabytes of contents, and the names and digests of all members: a tar is in any order.
 *
 * When it resolves, all of it is durable. When it rejects, no directory of it is visible; contents that were stored
 * already stay, and make the next attempt faster.
 *
 * @param archive the archive, or the path of a file that it is in, as bytes where it is not UTF-8
 * @returns the root node
 * @throws CastoreError `not_found` if there is no such file, `data_loss` for what is no archive, is damaged or breaks
 *   off; `invalid_argument` for members that are refused, by path; whatever the stream and the services throw
 */
export async function importArchive(
  archive: string | Buffer | AsyncIterable<Uint8Array>,
  services: { blobService: BlobService; directoryService: DirectoryService },
  options: ImportArchiveOptions = {},
): Promise<Node> {
  const { signal } = options;
  signal?.throwIfAborted();
  const isPath = typeof archive === "string" || Buffer.isBuffer(archive);
  const stream = untilAborted(isPath ? readArchive(Buffer.from(archive)) : archive, signal);
  const entries = archiveEntries(uncompressed(stream, signal), services.blobService, options);
  return await ingestEntries(services.directoryService, entries, { signal });
}

/** Bytes per read of a file. */
const READ_SIZE = 256 * 1024;

/** The contents of a file, in pieces that are lent until the next one is asked for. */
async function* readArchive(path: Buffer): AsyncGenerator<Uint8Array> {
  try {
    await using file = await open(path);
    // One buffer again and again: new ones pile up faster than the collector of garbage takes them away.
    const buffer = new Uint8Array(READ_SIZE);
    for (;;) {
      const { bytesRead } = await file.read(buffer);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw noSuchFile(error, path) ?? fileError(error, path, "read");
  }
}

async function* uncompressed(
  stream: AsyncGenerator<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let start = Buffer.alloc(0);
  const whole = async function* () {
    yield start;
    yield* stream;
  };
  try {
    while (start.length < MAGIC_LENGTH) {
      const { done, value } = await stream.next();
      if (done) break;
      start = Buffer.concat([start, value]);
    }
    const compression = compressionOf(start);
    yield* compression === undefined ? whole() : decompress(whole(), compression, { signal });
  } finally {
    await stream.return(undefined);
  }
}

/** Stores the contents of the files in an archive, and then gives its tree. */
async function* archiveEntries(
  stream: AsyncIterable<Uint8Array>,
  blobService: BlobService,
  { signal, onProgress }: ImportArchiveOptions,
): AsyncGenerator<IngestEntry> {
  const tree = new ArchiveTree();
  await using store = new ContentsStore(blobService, { signal });
  let [entries, bytes] = [0, 0];
  const counted = async function* (contents: AsyncIterable<Uint8Array>) {
    for await (const data of contents) {
      yield data;
      bytes += data.length;
      onProgress?.({ entries, bytes });
    }
  };
  for await (const member of readTar(stream)) {
    switch (member.type) {
      case "directory":
        tree.addDirectory(member.path);
        break;
      case "symlink":
        tree.addSymlink(member.path, member.target);
        break;
      case "hardlink":
        tree.addHardLink(member.path, member.target);
        break;
      case "file": {
        const resolve = tree.addFile(member.path, member);
        const contents = onProgress ? counted(member.contents) : member.contents;
        await store.add({ size: member.size, contents }, { resolve, reject: () => undefined });
      }
    }
    entries += 1;
    onProgress?.({ entries, bytes });
  }
  await store.finish();
  yield* tree.takeEntries();
}
