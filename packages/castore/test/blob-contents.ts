import { createHash } from "node:crypto";

/** Returns the `i`-th blob of a worker of `write-blobs.ts`, practically incompressible. */
export function blobContents(seed: string, worker: number, i: number): Buffer {
  const outputLength = i % 7 === 0 ? 900_000 : 20_000;
  return createHash("shake256", { outputLength }).update(`${seed} ${worker} ${i}`).digest();
}

/** The report of `write-blobs.ts` about a stored blob. */
export interface FinishedBlob {
  readonly hex: string;
  readonly worker: number;
  readonly i: number;
}
