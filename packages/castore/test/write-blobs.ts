// Puts blobs into a pack store until it is killed, eight at a time, and tells the digest of each that is
// finished. Arguments: the folder, a seed.
import { createHash } from "node:crypto";
import { PackBlobService, putBlob } from "../src/index.ts";

const [path, seed] = process.argv.slice(2);
const service = await PackBlobService.open({ path: path! });

async function write(worker: number): Promise<void> {
  for (let i = 0; ; i++) {
    const word = createHash("sha256").update(`${seed} ${worker} ${i}`).digest("hex");
    const size = i % 7 === 0 ? 900_000 : 20_000;
    const digest = await putBlob(service, Buffer.alloc(size, word));
    process.send?.(digest.hex);
  }
}

await Promise.all(Array.from({ length: 8 }, (_, worker) => write(worker)));
