import { createHash } from "node:crypto";

/** What `write-blobs.ts` stores as the `i`-th blob of one of its workers: as good as incompressible. */
export function blobContents(seed: string, worker: number, i: number): Buffer {
  const outputLength = i % 7 === 0 ? 900_000 : 20_000;
  return createHash("shake256", { outputLength }).update(`${seed} ${worker} ${i}`).digest();
}

/** What `write-blobs.ts` tells of a blob that it has finished. */
export interface FinishedBlob {
  readonly hex: string;
  readonly worker: number;
  readonly i: number;
}
