// Puts blobs into a pack store until it is killed, eight at a time, and prints a line for each stored blob: its digest,
// the worker, which blob of that it is. Arguments: the folder, a seed.
import { PackBlobService, putBlob } from "../src/index.ts";
import { blobContents, type FinishedBlob } from "./blob-contents.ts";

const [path, seed] = process.argv.slice(2);
const service = await PackBlobService.open({ path: path! });

async function write(worker: number): Promise<void> {
  for (let i = 0; ; i++) {
    const { hex } = await putBlob(service, blobContents(seed!, worker, i));
    process.send?.({ hex, worker, i } satisfies FinishedBlob);
  }
}

await Promise.all(Array.from({ length: 8 }, (_, worker) => write(worker)));
