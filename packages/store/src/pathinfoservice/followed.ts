import { type AbortOptions, StoreCalls } from "@tvix/castore";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

const PATH_INFOS = { attribute: "tvix.count", of: () => 1 };

/** A PathInfo service with a name, which its errors and the spans of its calls tell. */
export class FollowedPathInfoService implements PathInfoService {
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

  put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    const about = () => ({ "tvix.hash_part": encodeNixbase32(pathInfo.storePath.hashPart) });
    return this.#calls.run("put", about, options, () => this.#inner.put(pathInfo, options));
  }

  list(options?: AbortOptions): AsyncIterable<PathInfo> {
    const call = () => this.#inner.list(options);
    return this.#calls.stream("list", () => ({}), options, call, PATH_INFOS);
  }

  /** Disposes of the service, once. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= Promise.resolve(this.#inner[Symbol.asyncDispose]());
    return this.#disposed;
  }
}
