import { open } from "node:fs/promises";
import type { BlobService } from "../blobservice/blob-service.ts";
import { untilAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import {
  type DecompressOptions,
  decompress,
  detectCompression,
} from "../compression/decompress.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { fileError, noSuchFile, showFilePath } from "../disk/file-error.ts";
import type { Node } from "../model/node.ts";
import { type MemberSelection, selectMember, stripPath } from "./archive-selection.ts";
import { ArchiveTree } from "./archive-tree.ts";
import { ContentsStore } from "./contents-store.ts";
import type { ImportProgress } from "./fs.ts";
import { type IngestEntry, ingestEntries } from "./ingest-entries.ts";
import { readTar, type TarMember } from "./tar/reader.ts";

/** Options of {@link importArchive}. */
export interface ImportArchiveOptions extends AbortOptions, MemberSelection {
  /** Receives running totals after each member and each piece of a file. Default: none. */
  onProgress?: (progress: ImportProgress) => void;
}

/**
 * Stores the members of a tar archive as a folder, as if GNU tar had unpacked it and the result was imported. The
 * archive may be compressed with gzip, xz, zstd or bzip2, which is found out by its first bytes. It is read once.
 * Names, contents, symlink targets and the owner's right to execute a file are kept. An archive without members is an
 * empty folder.
 *
 * The last of several members of one path wins. Members outside of the archive's root (`..`, absolute paths), below a
 * symlink or a file, or in place of a folder with entries are refused; so are hard links to what did not come before
 * them, devices and fifos.
 *
 * Holds some megabytes of contents, what {@link decompress} holds, and the names and digests of all members, because
 * the members of a tar come in any order.
 *
 * When it resolves, everything is durable. When it rejects, no directory is visible; contents that were stored stay,
 * and make the next attempt faster.
 *
 * @param archive the archive, or the path of a file that has it
 * @returns the root node
 * @throws CastoreError `not_found` if there is no such file; `data_loss` for what is no archive, is damaged or breaks
 *   off; `resource_exhausted` for a compressed one that needs too much memory; `invalid_argument` for members that are
 *   refused, with their path; whatever the stream and the services throw
 */
export async function importArchive(
  archive: string | Buffer | AsyncIterable<Uint8Array>,
  services: { blobService: BlobService; directoryService: DirectoryService },
  options: ImportArchiveOptions = {},
): Promise<Node> {
  const { signal } = options;
  signal?.throwIfAborted();
  const path =
    typeof archive === "string" || Buffer.isBuffer(archive) ? Buffer.from(archive) : undefined;
  const name = path && showFilePath(path);
  const source = path === undefined ? (archive as AsyncIterable<Uint8Array>) : readArchive(path);
  const plain = uncompressed(untilAborted(source, signal), { signal, name });
  const members = readTar(plain, name && `tar archive ${name}`);
  const entries = archiveEntries(members, services.blobService, options);
  return await ingestEntries(services.directoryService, entries, { signal });
}

/** Bytes per read of a file. */
const READ_SIZE = 256 * 1024;

/** Reads a file in pieces that are lent until the next one is asked for. */
async function* readArchive(path: Buffer): AsyncGenerator<Uint8Array> {
  try {
    await using file = await open(path);
    const buffer = new Uint8Array(READ_SIZE); // one for all: new ones would pile up as garbage
    for (;;) {
      const { bytesRead } = await file.read(buffer);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } catch (error) {
    throw noSuchFile(error, path) ?? fileError(error, path, "read");
  }
}

/** Decompresses a stream if its first bytes are those of a format. */
async function* uncompressed(
  stream: AsyncGenerator<Uint8Array>,
  options: DecompressOptions,
): AsyncGenerator<Uint8Array> {
  try {
    const { compression, stream: whole } = await detectCompression(stream);
    yield* compression === undefined ? whole : decompress(whole, compression, options);
  } finally {
    await stream.return(undefined);
  }
}

/** Stores the contents of the files in an archive, and then yields its tree. */
async function* archiveEntries(
  members: AsyncIterable<TarMember>,
  blobService: BlobService,
  { signal, onProgress, ...selection }: ImportArchiveOptions,
): AsyncGenerator<IngestEntry> {
  const tree = new ArchiveTree();
  await using store = new ContentsStore(blobService, { signal });
  let [entries, bytes] = [0, 0];
  const counted = async function* (contents: AsyncIterable<Uint8Array>) {
    for await (const data of contents) {
      yield data;
      bytes += data.length;
      onProgress?.({ entries, bytes, newBytes: undefined });
    }
  };
  for await (const member of members) {
    const path = selectMember(member, selection);
    if (path === undefined) continue;
    switch (member.type) {
      case "directory":
        tree.addDirectory(path);
        break;
      case "symlink":
        tree.addSymlink(path, member.target);
        break;
      case "hardlink":
        tree.addHardLink(path, stripPath(member.target, selection.stripComponents));
        break;
      case "file": {
        const resolve = tree.addFile(path, member);
        const contents = onProgress ? counted(member.contents) : member.contents;
        await store.add({ size: member.size, contents }, { resolve, reject: () => undefined });
      }
    }
    entries += 1;
    onProgress?.({ entries, bytes, newBytes: undefined });
  }
  await store.finish();
  yield* tree.takeEntries();
}
