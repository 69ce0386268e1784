import {
  type BlobService,
  collectBytes,
  type DirectoryService,
  importPath,
  walkClosure,
} from "@tvix/castore";

/** Stores a folder, reads every file of it back, and prints the digest that the folder has now. */
export async function roundTrip(
  folder: string,
  blobService: BlobService,
  directoryService: DirectoryService,
): Promise<void> {
  const root = await importPath(folder, { blobService, directoryService });
  let bytes = 0;
  for await (const item of walkClosure(directoryService, root)) {
    if (item.type === "directory") continue;
    const stream = await blobService.read(item.digest);
    if (stream === undefined) throw new Error(`Cannot read blob ${item.digest}: it is missing`);
    bytes += (await collectBytes(stream)).length;
  }
  const digest = root.type === "symlink" ? "a symlink" : root.digest;
  console.log(`${digest}: read ${bytes} bytes back`);
}
