import { type Failure, failureOf } from "../worker/failure.ts";
import { SourceFile } from "./source-file.ts";

/** Files to read. */
interface ReadFilesTask {
  /** Where they are in the file system, each byte of a path as one character. */
  readonly paths: readonly string[];
  /** Files of up to this many bytes are read. */
  readonly maxSize: number;
  /** Takes the contents, one after the other. */
  readonly slab: SharedArrayBuffer;
}

/** What became of a file. */
export type ReadFile =
  /** It was read: its contents stand in the slab from `at` on. */
  | {
      readonly type: "read";
      readonly at: number;
      readonly size: number;
      readonly executable: boolean;
    }
  /** It was not read, because it is too large, or there was no room for it. */
  | { readonly type: "large" }
  | { readonly type: "failed"; readonly failure: Failure };

/** Reads many small files at once. For a thread of the pool. */
export function readFiles({ paths, maxSize, slab }: ReadFilesTask): readonly ReadFile[] {
  let at = 0;
  return paths.map((path): ReadFile => {
    try {
      using file = SourceFile.openSync(Buffer.from(path, "latin1"));
      const { size, executable } = file;
      const start = at;
      // With a byte more, to notice a file that grew.
      if (size > maxSize || start + size + 1 > slab.byteLength) return { type: "large" };
      file.readSync(new Uint8Array(slab, start, size + 1));
      at += size;
      return { type: "read", at: start, size, executable };
    } catch (error) {
      return { type: "failed", failure: failureOf(error) };
    }
  });
}
