import type { Subject, Workload } from "./subject.ts";
import { binaryCache, crowdedCache, nginxCache, peerCache } from "./subjects/binary-cache.ts";
import { blobs } from "./subjects/blobs.ts";
import { copy } from "./subjects/copy.ts";
import { floor } from "./subjects/floor.ts";
import type { ImportTrees } from "./subjects/import-steps.ts";
import { filesOnDisk, type MountRead, mountDirect, mountOfDaemon } from "./subjects/mount.ts";
import { calculateNar, narIngest, narRender } from "./subjects/nar.ts";
import { nixAlone, nixPush, type PushedPaths } from "./subjects/nix-push.ts";
import { nixStore } from "./subjects/nix-store.ts";
import { pathInfos } from "./subjects/path-infos.ts";
import { plainHttp2 } from "./subjects/plain-http2.ts";
import { pushByCopy, pushByNix } from "./subjects/push.ts";
import { restic } from "./subjects/restic.ts";
import { bareNode, smallestCommands } from "./subjects/start.ts";
import { statsBesideUploads } from "./subjects/stats.ts";
import { tarZstd } from "./subjects/tar-zstd.ts";
import { daemonImport, directImport, ours, oursInMemory, peer } from "./subjects/tvix-store.ts";
import {
  blobFile,
  changedTree,
  largeFile,
  largeTree,
  manyEntries,
  smallTree,
  treeOfFiles,
} from "./trees/seeded.ts";
import { inspectTree } from "./trees/tree.ts";

/** What is run when no trees are given: generated ones, and a daemon spoken to over its socket. */
export async function defaultWorkloads(cache: string): Promise<Workload[]> {
  const small = await inspectTree(await smallTree(cache), "small");
  const changed = await inspectTree(await changedTree(cache), "changed");
  const large = await inspectTree(await largeTree(cache), "large");
  const source = await blobFile(cache);
  const blob = await inspectTree(source, "blobs");
  const many = await inspectTree(await manyEntries(cache), "many");
  const paths = await inspectTree(await treeOfFiles(cache, 1000), "1,000 small paths");
  const long = await inspectTree(await largeFile(cache, 500), "one path of 500 MB");
  return [
    treeWorkload({ tree: small, changed }),
    treeWorkload({ tree: large }),
    {
      name: "grpc",
      trees: [blob],
      subjects: [
        blobs(ours, source),
        blobs(oursInMemory, source),
        blobs(peer, source),
        plainHttp2(),
        pathInfos(),
        statsBesideUploads(),
      ],
    },
    {
      name: "start",
      trees: [],
      subjects: [bareNode(), smallestCommands()],
    },
    mountWorkload("mount", [
      { name: "tar of 10,000 files", kind: "tar", tree: small },
      { name: "find over 100,000 entries", kind: "find", tree: many },
      { name: "256 MB", kind: "sequential", tree: blob },
      { name: "256 MB again", kind: "again", tree: blob },
      { name: "4 KiB at random", kind: "random", tree: blob },
    ]),
    pushWorkload([
      { tree: paths, compression: "xz" },
      { tree: paths, compression: "zstd" },
      { tree: long, compression: "none" },
      { tree: long, compression: "zstd" },
    ]),
  ];
}

/** What is run for trees of the user's own. */
export async function workloadsFor(paths: readonly string[]): Promise<Workload[]> {
  const workloads = await Promise.all(
    paths.map(async (path) => {
      const tree = await inspectTree(path, path);
      const mounted = mountWorkload(`${path}, mounted`, [{ name: "read all", kind: "tar", tree }]);
      return [treeWorkload({ tree }), mounted];
    }),
  );
  return workloads.flat();
}

function mountWorkload(name: string, reads: readonly MountRead[]): Workload {
  return {
    name,
    trees: [...new Set(reads.map(({ tree }) => tree))],
    subjects: [
      mountDirect(ours, reads),
      mountOfDaemon(ours, reads),
      mountDirect(peer, reads),
      mountOfDaemon(peer, reads),
      filesOnDisk(reads),
    ],
  };
}

function pushWorkload(pushes: readonly PushedPaths[]): Workload {
  return {
    name: "push",
    trees: [...new Set(pushes.map(({ tree }) => tree))],
    subjects: pushes.flatMap((paths) => [nixPush(paths), nixAlone(paths)]),
  };
}

function treeWorkload(trees: ImportTrees): Workload {
  const { tree, changed } = trees;
  const subjects: Subject[] = [
    floor(trees),
    directImport(ours, trees),
    daemonImport(ours, trees),
    directImport(peer, trees),
    daemonImport(peer, trees),
    restic(trees),
    nixStore(trees),
    copy(trees),
    tarZstd(trees),
    narRender(tree),
    narIngest(tree),
    calculateNar(tree),
    binaryCache(tree),
    crowdedCache(tree),
    peerCache(tree),
    nginxCache(tree),
    ...(changed ? [pushByCopy({ tree, changed }), pushByNix({ tree, changed })] : []),
  ];
  return { name: tree.name, trees: changed ? [tree, changed] : [tree], subjects };
}
