import type { FileBatch, FileStore, LargeFile } from "../blobservice/file-store.ts";
import type { EntryState } from "../disk/entry-state.ts";
import type { StoreCall, StoreCalls } from "./store-calls.ts";

/** Instruments the file store of a blob service: a call lasts until what it stores is durable. */
export function instrumentFiles(files: FileStore, calls: StoreCalls): FileStore {
  return {
    parallelism: files.parallelism,
    batchBytes: files.batchBytes,
    async putSmall(paths, options) {
      const about = () => ({ "tvix.count": paths.length });
      const call = calls.begin("files.putSmall", about, options);
      return new InstrumentedFileBatch(call, await call.run(() => files.putSmall(paths, options)));
    },
    async putLarge(file, options) {
      const call = calls.begin("files.putLarge", () => ({ "tvix.bytes": file.size }), options);
      return new InstrumentedLargeFile(call, await call.run(() => files.putLarge(file, options)));
    },
  };
}

/** Ends a call when what it stores is durable, or cannot be stored. */
function endingWith(call: StoreCall, stored: Promise<void>): Promise<void> {
  const ending = stored.then(
    () => call.end(),
    (error: unknown) => {
      throw call.fail(error);
    },
  );
  ending.catch(() => undefined); // handled where it is awaited
  return ending;
}

/** Delegates to a batch. It is no `Proxy`, which would bind a function for each of the calls that a file takes. */
class InstrumentedFileBatch implements FileBatch {
  readonly stored: Promise<void>;
  readonly #batch: FileBatch;

  constructor(call: StoreCall, batch: FileBatch) {
    this.stored = endingWith(call, batch.stored);
    this.#batch = batch;
  }

  outcome(i: number): ReturnType<FileBatch["outcome"]> {
    return this.#batch.outcome(i);
  }

  size(i: number): number {
    return this.#batch.size(i);
  }

  isExecutable(i: number): boolean {
    return this.#batch.isExecutable(i);
  }

  digest(i: number): Uint8Array {
    return this.#batch.digest(i);
  }

  state(i: number): EntryState {
    return this.#batch.state(i);
  }

  contents(i: number): Uint8Array {
    return this.#batch.contents(i);
  }

  [Symbol.dispose](): void {
    this.#batch[Symbol.dispose]();
  }
}

class InstrumentedLargeFile implements LargeFile {
  readonly #call: StoreCall;
  readonly #file: LargeFile;

  constructor(call: StoreCall, file: LargeFile) {
    this.#call = call;
    this.#file = file;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    let isWhole = false;
    try {
      yield* this.#file.pieces();
      isWhole = true;
    } catch (error) {
      throw this.#call.fail(error);
    } finally {
      if (!isWhole) this.#call.end();
    }
  }

  finish(): ReturnType<LargeFile["finish"]> {
    const { digest, stored } = this.#file.finish();
    return { digest, stored: endingWith(this.#call, stored) };
  }
}
