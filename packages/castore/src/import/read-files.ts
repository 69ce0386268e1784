import { type Failure, failureOf } from "../worker/failure.ts";
import { SourceFile } from "./source-file.ts";

/** Files to read. */
interface ReadFilesTask {
  /** Their paths in the file system, one character a byte. */
  readonly paths: readonly string[];
  /** Largest file in bytes that is read. */
  readonly maxSize: number;
  /** Takes the contents in a row. */
  readonly slab: SharedArrayBuffer;
}

/** Outcome for one file. */
export type ReadFile =
  /** It was read into the slab from `at` on. */
  | {
      readonly type: "read";
      readonly at: number;
      readonly size: number;
      readonly executable: boolean;
    }
  /** It was not read: it is too large, or there was no room left. */
  | { readonly type: "large" }
  | { readonly type: "failed"; readonly failure: Failure };

/** Reads many small files. Runs in a thread of the pool. */
export function readFiles({ paths, maxSize, slab }: ReadFilesTask): readonly ReadFile[] {
  let at = 0;
  return paths.map((path): ReadFile => {
    try {
      using file = SourceFile.openSync(Buffer.from(path, "latin1"));
      const { size, executable } = file;
      const start = at;
      // One byte more, to notice a file that grew.
      if (size > maxSize || start + size + 1 > slab.byteLength) return { type: "large" };
      file.readSync(new Uint8Array(slab, start, size + 1));
      at += size;
      return { type: "read", at: start, size, executable };
    } catch (error) {
      return { type: "failed", failure: failureOf(error) };
    }
  });
}
