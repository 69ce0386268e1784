import type { AbortOptions } from "../bytes/abort-options.ts";
import type {
  DirectoryPutter,
  DirectoryService,
  RecursiveOptions,
} from "../directoryservice/directory-service.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { type StoreCall, StoreCalls } from "./store-calls.ts";

const DIRECTORIES = { attribute: "tvix.count", of: () => 1 };

/** A directory service with a name, which its errors and the spans of its calls tell. */
export class FollowedDirectoryService implements DirectoryService {
  readonly #inner: DirectoryService;
  readonly #calls: StoreCalls;
  #disposed: Promise<void> | undefined;

  constructor(inner: DirectoryService, name: string) {
    this.#inner = inner;
    this.#calls = new StoreCalls("DirectoryService", name);
  }

  get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    const about = () => ({ "tvix.digest": digest.toString() });
    return this.#calls.run("get", about, options, () => this.#inner.get(digest, options));
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    const call = () => this.#inner.getMany(digests, options);
    return this.#calls.run("getMany", () => ({ "tvix.count": digests.length }), options, call);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const call = () => this.#inner.hasMany(digests, options);
    return this.#calls.run("hasMany", () => ({ "tvix.count": digests.length }), options, call);
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    const about = () => ({ "tvix.digest": digest.toString() });
    const call = () => this.#inner.getRecursive(digest, options);
    return this.#calls.stream("getRecursive", about, options, call, DIRECTORIES);
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const call = this.#calls.begin("openPutter", () => ({}), options);
    return new FollowedDirectoryPutter(
      call,
      call.runSync(() => this.#inner.openPutter(options)),
    );
  }

  /** Disposes of the service, once. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= Promise.resolve(this.#inner[Symbol.asyncDispose]());
    return this.#disposed;
  }
}

/** A call that is over when the tree is stored, dropped or refused. */
class FollowedDirectoryPutter implements DirectoryPutter {
  readonly #call: StoreCall;
  readonly #inner: DirectoryPutter;
  #count = 0;

  constructor(call: StoreCall, inner: DirectoryPutter) {
    this.#call = call;
    this.#inner = inner;
  }

  async put(directory: Directory): Promise<void> {
    await this.#call.run(() => this.#inner.put(directory));
    this.#count += 1;
  }

  async close(): Promise<B3Digest> {
    const digest = await this.#call.run(() => this.#inner.close());
    this.#call.end({ "tvix.digest": digest.toString(), "tvix.count": this.#count });
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#call.run(async () => await this.#inner[Symbol.asyncDispose]());
    this.#call.end({ "tvix.count": this.#count });
  }
}
