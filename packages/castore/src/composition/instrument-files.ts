import type { FileBatch, FileStore, LargeFile } from "../blobservice/file-store.ts";
import type { StoreCall, StoreCalls } from "./store-calls.ts";

/** Instruments the file store of a blob service: a call lasts until what it stores is durable. */
export function instrumentFiles(files: FileStore, calls: StoreCalls): FileStore {
  return {
    parallelism: files.parallelism,
    batchBytes: files.batchBytes,
    async putSmall(paths, options) {
      const about = () => ({ "tvix.count": paths.length });
      const call = calls.begin("files.putSmall", about, options);
      const batch = await call.run(() => files.putSmall(paths, options));
      return withStored(batch, endingWith(call, batch.stored));
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

function withStored(batch: FileBatch, stored: Promise<void>): FileBatch {
  return new Proxy(batch, {
    get(target, name) {
      if (name === "stored") return stored;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
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
