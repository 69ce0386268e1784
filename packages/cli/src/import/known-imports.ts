import { mkdirSync, readFileSync, utimesSync } from "node:fs";
import { dirname } from "node:path";
import {
  type AbortOptions,
  type B3Digest,
  type EntryFilter,
  hasCode,
  type Node,
  stampTree,
  TreeStamp,
  walkClosure,
} from "@tvix/castore";
import { type PathInfo, StorePath } from "@tvix/store";
import { sweepCacheFolder, writeCacheFile } from "../cache-file.ts";
import type { Services } from "../services.ts";
import { type ImportSource, recordFile } from "./import-record.ts";

/**
 * How long a tree has to have been left alone before it is imported, in milliseconds: what changes within the resolution of
 * the times of a file system, which is 2 s at worst (FAT), might go unseen.
 */
const SETTLED_MS = 2_000;

/** How many blobs are looked up together. */
const BLOBS_PER_LOOKUP = 4096;

/** An import that is not needed: its result is stored, and its source has not changed since. */
export interface KnownImport {
  readonly pathInfo: PathInfo;
  /** How many files, symlinks and folders it has. */
  readonly entries: number;
}

/** What is remembered of an import. */
interface ImportRecord {
  readonly stamp: string;
  readonly storePath: StorePath;
}

/**
 * Remembers, in the user's folder for caches, which store path an import of a path made, and the stamp of the tree: a tree that
 * has not changed need not be read again. A record that is lost, or cannot be written, costs no more than reading the tree.
 */
export class KnownImports {
  readonly #reread: boolean;
  #isSwept = false;

  /** @param options.reread whether nothing of before counts. Default: false */
  constructor({ reread = false }: { reread?: boolean | undefined } = {}) {
    this.#reread = reread;
  }

  /**
   * Returns the result of an import before, unless its source has changed since, or anything of it is not stored (any more).
   *
   * @param options.filter leaves out what `source.exclude` matches
   * @throws whatever the services throw, and `stampTree` of @tvix/castore
   */
  async find(
    source: ImportSource,
    services: Services,
    { filter, signal }: AbortOptions & { filter: EntryFilter | undefined },
  ): Promise<KnownImport | undefined> {
    const file = this.#fileOf(source);
    const record = file === undefined ? undefined : readRecord(file);
    if (record === undefined) return undefined;
    const { storePath } = record;
    const pathInfo = await services.pathInfoService.get(storePath.hashPart, { signal });
    if (pathInfo === undefined || `${pathInfo.storePath}` !== `${storePath}`) return undefined;
    const { digest, entries } = await stampTree(source.path, { exclude: filter, signal });
    if (digest !== record.stamp) return undefined;
    if (!(await isStored(pathInfo.node, services, { signal }))) return undefined;
    return { pathInfo, entries };
  }

  /** Starts to watch an import, which fills the stamp. */
  begin(source: ImportSource): { stamp: TreeStamp; finish(pathInfo: PathInfo): void } {
    const stamp = new TreeStamp();
    const begunMs = Date.now();
    const finish = ({ storePath }: PathInfo) => {
      if (stamp.newestMs > begunMs - SETTLED_MS) return;
      this.#write(source, { stamp: stamp.digest, storePath });
    };
    return { stamp, finish };
  }

  /** Returns where an import before is remembered; `undefined` where none counts. */
  #fileOf(source: ImportSource): string | undefined {
    return this.#reread ? undefined : recordFile(source);
  }

  #write(source: ImportSource, { stamp, storePath }: ImportRecord): void {
    const file = recordFile(source);
    if (file === undefined) return;
    try {
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      if (!this.#isSwept) sweepCacheFolder(dirname(file));
      this.#isSwept = true;
      writeCacheFile(file, JSON.stringify({ stamp, storePath: `${storePath}` }));
    } catch {} // the next import reads everything
  }
}

/** Reads a record, and notes that it is in use; `undefined` if there is none, or not one of this version. */
function readRecord(file: string): ImportRecord | undefined {
  try {
    const { stamp, storePath } = JSON.parse(readFileSync(file, "utf8"));
    if (typeof stamp !== "string") return undefined;
    const now = new Date();
    utimesSync(file, now, now);
    return { stamp, storePath: StorePath.parse(storePath) };
  } catch {
    return undefined;
  }
}

/** Tells whether everything that a node leads to is stored. */
async function isStored(node: Node, services: Services, options: AbortOptions): Promise<boolean> {
  const { blobService, directoryService } = services;
  const isComplete = async (digests: readonly B3Digest[]) =>
    (await blobService.hasMany(digests, options)).every((has) => has);
  try {
    let digests: B3Digest[] = [];
    for await (const item of walkClosure(directoryService, node, options)) {
      if (item.type !== "blob") continue;
      if (digests.push(item.digest) < BLOBS_PER_LOOKUP) continue;
      if (!(await isComplete(digests))) return false;
      digests = [];
    }
    return await isComplete(digests);
  } catch (error) {
    if (hasCode(error, "not_found") || hasCode(error, "data_loss")) return false;
    throw error;
  }
}
