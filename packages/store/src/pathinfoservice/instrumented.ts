import { type AbortOptions, StoreCalls } from "@tvix/castore";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

const PATH_INFOS = { attribute: "tvix.count", of: () => 1 };

/** Names a PathInfo service: its errors carry the name, and each call is a span with the name as attribute. */
export class InstrumentedPathInfoService implements PathInfoService {
  readonly #inner: PathInfoService;
  readonly #calls: StoreCalls;
  #disposed: Promise<void> | undefined;

  constructor(inner: PathInfoService, name: string) {
    this.#inner = inner;
    this.#calls = new StoreCalls("PathInfoService", name);
  }

  get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    const about = () => ({ "tvix.hash_part": encodeNixbase32(hashPart) });
    return this.#calls.run("get", about, options, () => this.#inner.get(hashPart, options));
  }

  getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    const about = () => ({ "tvix.count": hashParts.length });
    return this.#calls.run("getMany", about, options, () =>
      this.#inner.getMany(hashParts, options),
    );
  }

  put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    const about = () => ({ "tvix.hash_part": encodeNixbase32(pathInfo.storePath.hashPart) });
    return this.#calls.run("put", about, options, () => this.#inner.put(pathInfo, options));
  }

  /** Begins the span with the iteration: a listing that is never iterated is no call. */
  async *list(options?: ListPathInfosOptions): AsyncGenerator<PathInfo> {
    const call = () => this.#inner.list(options);
    yield* this.#calls.stream("list", () => ({}), options, call, PATH_INFOS);
  }

  /** Disposes of the service, once. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= Promise.resolve(this.#inner[Symbol.asyncDispose]());
    return this.#disposed;
  }
}
