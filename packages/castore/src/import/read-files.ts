import { CastoreError } from "../errors.ts";
import { type Failure, failureOf } from "../worker/failure.ts";
import { moved } from "../worker/moved.ts";
import { SourceFile } from "./source-file.ts";

/** Files to read. */
export interface ReadFilesTask {
  /** Where they are in the file system, each byte of a path as one character. */
  readonly paths: readonly string[];
  /** Files of up to this many bytes are read. */
  readonly maxSize: number;
}

/** What was read of the files. */
export interface ReadFiles {
  readonly contents: Uint8Array;
  /** What became of each file, in order. */
  readonly files: readonly ReadFile[];
}

type ReadFile =
  /** It stands in the contents from `at` on. */
  | {
      readonly type: "small";
      readonly at: number;
      readonly size: number;
      readonly executable: boolean;
    }
  /** It was not read, for its size. */
  | { readonly type: "large" }
  | { readonly type: "failed"; readonly failure: Failure };

/** Reads many small files at once. For a thread of the pool. */
export function readFiles({ paths, maxSize }: ReadFilesTask): ReadFiles {
  using opened = new DisposableStack();
  let length = 0;
  const sources = paths.map((path) => {
    try {
      const file = opened.use(SourceFile.openSync(Buffer.from(path, "latin1")));
      if (file.size > maxSize) return undefined;
      length += file.size + 1;
      return file;
    } catch (error) {
      return failed(error);
    }
  });
  const contents = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  let at = 0;
  const files = sources.map((file): ReadFile => {
    if (file === undefined) return { type: "large" };
    if (!(file instanceof SourceFile)) return file;
    const { size, executable } = file;
    const start = at;
    at += size + 1;
    try {
      file.readSync(contents.subarray(start, at));
      return { type: "small", at: start, size, executable };
    } catch (error) {
      return failed(error);
    }
  });
  return moved({ contents, files }, [contents.buffer]);
}

function failed(error: unknown): { type: "failed"; failure: Failure } {
  if (!(error instanceof CastoreError)) throw error;
  return { type: "failed", failure: failureOf(error) };
}
