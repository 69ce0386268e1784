import { type EntryState, readState, STATE_NUMBERS, writeState } from "../disk/entry-state.ts";
import { SourceFile } from "../disk/source-file.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import type { FileBatch } from "./file-store.ts";

/** Files that a lane reads whole, one after the other, into a slab. */
export interface ReadFilesTask {
  /** Their paths in the file system, one character a byte. */
  readonly paths: readonly string[];
  readonly slab: SharedArrayBuffer;
  /** Length of the contents that the slab takes, in bytes. */
  readonly contentsBytes: number;
}

/** Result of reading files, by their positions. */
export interface FilesRead {
  /** One of {@link OUTCOME} for each. */
  readonly outcomes: Uint8Array;
  /** Length in bytes of each that was read. */
  readonly sizes: Uint32Array;
  /** The digest of each, 32 bytes, one after the other. */
  readonly digests: Uint8Array;
  /** What the file system said of each when it was opened, packed. */
  readonly states: Float64Array;
  /** The errors of those that could not be read, in order. */
  readonly failures: readonly { readonly code: ErrorCode; readonly message: string }[];
}

/**
 * Outcome for a file: it was read, is executable as well, is too large for any batch, could not be read, or did not fit
 * any more, nor did those that follow.
 */
const OUTCOME = { plain: 0, executable: 1, large: 2, failed: 3, left: 4 } as const;

/** Tells whether an outcome is that of a file that was read. */
export function isRead(outcome: number): boolean {
  return outcome === OUTCOME.plain || outcome === OUTCOME.executable;
}

/** Reads files, and blocks the thread. Digests are those that `take` returns for the contents of each. */
export function readFilesInto(
  { paths, slab, contentsBytes }: ReadFilesTask,
  take: (contents: Uint8Array) => B3Digest,
): FilesRead {
  const outcomes = new Uint8Array(paths.length);
  const sizes = new Uint32Array(paths.length);
  const digests = new Uint8Array(paths.length * B3Digest.LENGTH);
  const states = new Float64Array(paths.length * STATE_NUMBERS);
  const failures: { code: ErrorCode; message: string }[] = [];
  let at = 0;
  for (let i = 0; i < paths.length; i++) {
    try {
      using file = SourceFile.openSync(Buffer.from(paths[i]!, "latin1"));
      const { size } = file;
      writeState(states, i, file.state);
      if (size >= contentsBytes) {
        outcomes[i] = OUTCOME.large;
        continue;
      }
      if (at + size >= contentsBytes) {
        outcomes.fill(OUTCOME.left, i);
        break;
      }
      const contents = new Uint8Array(slab, at, size);
      file.readSync(contents);
      outcomes[i] = file.executable ? OUTCOME.executable : OUTCOME.plain;
      sizes[i] = size;
      digests.set(take(contents).bytes, i * B3Digest.LENGTH);
      at += size;
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      outcomes[i] = OUTCOME.failed;
      failures.push({ code: error.code, message: error.message });
    }
  }
  return { outcomes, sizes, digests, states, failures };
}

/** Small files that a lane has read into a slab. */
export class SlabFileBatch implements FileBatch {
  readonly stored: Promise<void>;
  readonly #slab: SharedArrayBuffer;
  readonly #files: FilesRead;
  /** Where the contents of each file start. */
  readonly #starts: Uint32Array;
  /** The errors of files that could not be read, by position. */
  readonly #failures = new Map<number, CastoreError>();
  #release: (() => void) | undefined;

  /**
   * @param stored resolves when the contents are durable
   * @param release is called when the contents are given up
   */
  constructor(
    slab: SharedArrayBuffer,
    files: FilesRead,
    { stored, release }: { stored: Promise<void>; release: () => void },
  ) {
    this.#slab = slab;
    this.#files = files;
    this.#release = release;
    this.stored = stored;
    stored.catch(() => undefined); // handled where it is awaited
    const { outcomes, sizes, failures } = files;
    this.#starts = new Uint32Array(outcomes.length);
    let at = 0;
    for (let i = 0; i < outcomes.length; i++) {
      this.#starts[i] = at;
      at += sizes[i]!;
      if (outcomes[i] !== OUTCOME.failed) continue;
      const { code, message } = failures[this.#failures.size]!;
      this.#failures.set(i, new CastoreError(code, message));
    }
  }

  outcome(i: number): "read" | "large" | "left" | CastoreError {
    switch (this.#files.outcomes[i]) {
      case OUTCOME.failed:
        return this.#failures.get(i)!;
      case OUTCOME.large:
        return "large";
      case OUTCOME.left:
        return "left";
      default:
        return "read";
    }
  }

  size(i: number): number {
    return this.#files.sizes[i]!;
  }

  isExecutable(i: number): boolean {
    return this.#files.outcomes[i] === OUTCOME.executable;
  }

  digest(i: number): Uint8Array {
    return this.#files.digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
  }

  state(i: number): EntryState {
    return readState(this.#files.states, i);
  }

  contents(i: number): Uint8Array {
    return new Uint8Array(this.#slab, this.#starts[i]!, this.#files.sizes[i]!);
  }

  [Symbol.dispose](): void {
    this.#release?.();
    this.#release = undefined;
  }
}
