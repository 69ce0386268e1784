import { AsyncLocalStorage } from "node:async_hooks";
import { matchesGlob } from "node:path";
import type { AbortOptions } from "@tvix/castore";
import { type PathInfo, type PathInfoService, StoreError } from "@tvix/store";

/**
 * Restricts the store paths that requests register. What a request may register travels with it, so that one PathInfo
 * service, wherever it is called from, knows.
 */
export class StoreNames {
  readonly #globs = new AsyncLocalStorage<readonly string[]>();

  /**
   * Runs an action that may only register store paths with certain names.
   *
   * @param globs `undefined` for any name
   */
  run<T>(globs: readonly string[] | undefined, action: () => T): T {
    return globs === undefined ? action() : this.#globs.run(globs, action);
  }

  /** Returns a PathInfo service that refuses whatever {@link run} does not let the caller register. */
  guard(inner: PathInfoService): PathInfoService {
    return new GuardedPathInfoService(inner, this.#globs);
  }
}

class GuardedPathInfoService implements PathInfoService {
  readonly get: PathInfoService["get"];
  readonly getMany: PathInfoService["getMany"];
  readonly list: PathInfoService["list"];
  readonly listPages: PathInfoService["listPages"];
  readonly #inner: PathInfoService;
  readonly #globs: AsyncLocalStorage<readonly string[]>;

  constructor(inner: PathInfoService, globs: AsyncLocalStorage<readonly string[]>) {
    this.#inner = inner;
    this.#globs = globs;
    this.get = inner.get.bind(inner);
    this.getMany = inner.getMany.bind(inner);
    this.list = inner.list.bind(inner);
    this.listPages = inner.listPages.bind(inner);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    const globs = this.#globs.getStore();
    const { name } = pathInfo.storePath;
    if (globs !== undefined && !globs.some((glob) => matchesGlob(name, glob))) {
      const expected = globs.map((glob) => JSON.stringify(glob)).join(" or ");
      throw new StoreError(
        "permission_denied",
        `Cannot register "${pathInfo.storePath}": the token allows names that match ${expected}, found ${JSON.stringify(name)}`,
      );
    }
    return await this.#inner.put(pathInfo, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]?.();
  }
}
