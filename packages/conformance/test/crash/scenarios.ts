import {
  type B3Digest,
  type BlobService,
  blake3Digest,
  collectBytes,
  Directory,
  type DirectoryService,
  encodeDirectory,
  openBlobService,
  openDirectoryService,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import {
  encodePathInfo,
  openPathInfoService,
  type PathInfo,
  type PathInfoService,
  StorePath,
} from "@tvix/store";
import { seededBytes } from "../../src/trees.ts";

/** Something that is put into a store, and looked for after a crash. */
interface Step<Service> {
  readonly put: (service: Service) => Promise<void>;
  /**
   * Tells whether the item can be read.
   *
   * @throws Error if it is there in part, or other than it was put
   */
  readonly isThere: (service: Service) => Promise<boolean>;
}

/** An open store, and the items to put into it, in order. */
interface OpenScenario extends AsyncDisposable {
  readonly steps: readonly Step<void>[];
}

/** Opens the store of a scenario in a folder. */
export type Scenario = (folder: string) => Promise<OpenScenario>;

function scenario<Service extends AsyncDisposable>(
  open: (folder: string) => Promise<Service>,
  steps: readonly Step<Service>[],
): Scenario {
  return async (folder) => {
    const service = await open(folder);
    return {
      steps: steps.map(({ put, isThere }) => ({
        put: () => put(service),
        isThere: () => isThere(service),
      })),
      [Symbol.asyncDispose]: () => service[Symbol.asyncDispose](),
    };
  };
}

const NOISE = seededBytes("crash", 700_000);

function blobStep(...blobs: Uint8Array[]): Step<BlobService> {
  return {
    async put(service) {
      if (blobs.length === 1) await putBlob(service, blobs[0]!.slice());
      else await service.putMany(blobs);
    },
    async isThere(service) {
      const found = await Promise.all(blobs.map((blob) => hasBlob(service, blob)));
      // Blobs of a batch are each there, or not, on their own.
      return found.every((isThere) => isThere);
    },
  };
}

async function hasBlob(service: BlobService, contents: Uint8Array): Promise<boolean> {
  const digest = blake3Digest(contents);
  const stream = await service.read(digest);
  const isThere = await service.has(digest);
  const reader = await service.open(digest);
  await reader?.[Symbol.asyncDispose]();
  if (isThere !== (stream !== undefined) || isThere !== (reader !== undefined)) {
    throw new Error(`expected blob ${digest} to be there in every way or in none`);
  }
  if (stream === undefined) return false;
  if (Buffer.compare(await collectBytes(stream), contents) !== 0) {
    throw new Error(`expected the contents of blob ${digest}, found others`);
  }
  return true;
}

function treeStep(tree: readonly Directory[]): Step<DirectoryService> {
  const digests = tree.map((directory) => encodeDirectory(directory).digest);
  const has = async (service: DirectoryService, digest: B3Digest) =>
    (await service.get(digest)) !== undefined;
  return {
    async put(service) {
      await using putter = service.openPutter();
      for (const directory of tree) await putter.put(directory);
      await putter.close();
    },
    async isThere(service) {
      for (const digest of digests.toReversed()) {
        if (!(await has(service, digest))) continue;
        // The closure of each readable root is complete.
        for await (const directory of service.getRecursive(digest)) {
          for (const { node } of directory.entries) {
            if (node.type !== "directory" || (await has(service, node.digest))) continue;
            throw new Error(`expected directory ${node.digest}, that another one refers to`);
          }
        }
      }
      return await has(service, digests.at(-1)!);
    },
  };
}

function pathInfoStep(name: string): Step<PathInfoService> {
  const pathInfo: PathInfo = {
    storePath: StorePath.from(seededBytes(name, StorePath.HASH_PART_LENGTH), name),
    node: { type: "file", digest: blake3Digest(NOISE), size: 700_000n, executable: false },
    references: [],
    narSize: 120n,
    narSha256: seededBytes(name, 32),
    signatures: [],
  };
  return {
    async put(service) {
      await service.put(pathInfo);
    },
    async isThere(service) {
      const found = await service.get(pathInfo.storePath.hashPart);
      if (found === undefined) return false;
      if (Buffer.compare(encodePathInfo(found), encodePathInfo(pathInfo)) !== 0) {
        throw new Error(`expected the PathInfo of ${name}, found another`);
      }
      return true;
    },
  };
}

/**
 * A blob of one chunk, a batch of small ones, and one of several chunks. The first is stored by one change after the
 * other, the same ones in every process.
 */
const BLOB_STEPS = [
  blobStep(NOISE.subarray(0, 5000)),
  blobStep(NOISE.subarray(1, 100), new Uint8Array(0)),
  blobStep(NOISE),
];

function parentOf(...children: Directory[]): Directory {
  const nodeOf = (child: Directory) => {
    const { digest } = encodeDirectory(child);
    return { type: "directory", digest, size: child.size } as const;
  };
  return Directory.from(
    children.map((child, i) => ({ name: pathComponent(`${i}`), node: nodeOf(child) })),
  );
}

const LEAF = Directory.from([]);
const MIDDLE = parentOf(LEAF);
/** A tree, and one that it is a part of. */
const TREE_STEPS = [treeStep([LEAF, MIDDLE]), treeStep([LEAF, MIDDLE, parentOf(MIDDLE, LEAF)])];

/** The stores that keep something on disk, by name. */
export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  packs: scenario((folder) => openBlobService(`pack://${folder}/blobs`), BLOB_STEPS),
  "objects in files": scenario(
    (folder) => openBlobService(`objectstore+file://${folder}/blobs`),
    BLOB_STEPS,
  ),
  "directories in SQLite": scenario(
    (folder) => openDirectoryService(`sqlite://${folder}/directories`),
    TREE_STEPS,
  ),
  "directories in files": scenario(
    (folder) => openDirectoryService(`objectstore+file://${folder}/directories`),
    TREE_STEPS,
  ),
  "path infos in SQLite": scenario(
    (folder) => openPathInfoService(`sqlite://${folder}/path-infos`),
    ["first", "second"].map(pathInfoStep),
  ),
};
