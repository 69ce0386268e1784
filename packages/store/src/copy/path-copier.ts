import type { AbortOptions } from "@tvix/castore";
import { equalBytes } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { formatSignature } from "../nix/signature.ts";
import type { StorePath } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type {
  CopyContentsOptions,
  PathMetadata,
  StorePathServices,
  StorePathSource,
} from "./store-path-source.ts";

/** How many store paths are looked up together. */
const PATHS_PER_LOOKUP = 1024;

/** Copies store paths from a source into services. */
export class PathCopier {
  readonly #source: StorePathSource;
  readonly #target: StorePathServices;
  /** Copies that were begun, by hash part. */
  readonly #copies = new Map<string, Promise<PathInfo>>();

  constructor(source: StorePathSource, target: StorePathServices) {
    this.#source = source;
    this.#target = target;
  }

  /** Returns which PathInfos the target has, in order; `undefined` for one that it lacks. */
  async present(
    paths: readonly PathMetadata[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    return await this.#lookUp(
      paths.map(({ storePath }) => storePath),
      options,
    );
  }

  /**
   * Adds the signatures of the source to a PathInfo that the target has. Those of other contents do not count.
   *
   * @returns the PathInfo that is stored
   */
  async addSignatures(
    path: PathMetadata,
    present: PathInfo,
    options?: AbortOptions,
  ): Promise<PathInfo> {
    const known = new Set(present.signatures.map(formatSignature));
    const hasNew = path.signatures.some((one) => !known.has(formatSignature(one)));
    if (!hasNew || !equalBytes(path.narSha256, present.narSha256)) return present;
    const signatures = path.signatures;
    return await this.#target.pathInfoService.put({ ...present, signatures }, options);
  }

  /**
   * Copies a store path that the target lacks: its contents, and then its PathInfo, once the target has all that it refers
   * to. Paths that refer to one another are copied by calls in the order of their references, which need not have ended.
   *
   * @returns the registered PathInfo, once everything is durable. When it rejects, nothing was registered
   * @throws StoreError `not_found` if the target lacks a store path that it refers to, and no call has begun to copy it;
   *   whatever source and target throw
   */
  async copy(path: PathMetadata, options: CopyContentsOptions = {}): Promise<PathInfo> {
    const copying = this.#copy(path, options);
    copying.catch(() => undefined); // those that refer to it look
    this.#copies.set(encodeNixbase32(path.storePath.hashPart), copying);
    return await copying;
  }

  async #copy(path: PathMetadata, options: CopyContentsOptions): Promise<PathInfo> {
    const { storePath, references } = path;
    const others = references.filter((reference) => `${reference}` !== `${storePath}`);
    const begun = others.map(
      (one) => [one, this.#copies.get(encodeNixbase32(one.hashPart))] as const,
    );
    const unknown = begun.flatMap(([one, copy]) => (copy === undefined ? [one] : []));
    await this.#expectPresent(path, unknown, options);
    const node = await this.#source.copyContents(path, this.#target, options);
    for (const [reference, copy] of begun) {
      try {
        await copy;
      } catch (error) {
        options.signal?.throwIfAborted();
        const reason = `"${reference}", to which it refers, could not be copied`;
        const message = `Cannot copy "${storePath}": ${reason}`;
        throw new StoreError("not_found", message, { cause: error });
      }
    }
    return await this.#target.pathInfoService.put({ ...path, node }, { signal: options.signal });
  }

  async #expectPresent(
    { storePath }: PathMetadata,
    references: readonly StorePath[],
    { signal }: AbortOptions,
  ): Promise<void> {
    const found = await this.#lookUp(references, { signal });
    const missing = references[found.indexOf(undefined)];
    if (missing === undefined) return;
    throw new StoreError(
      "not_found",
      `Cannot copy "${storePath}": it refers to "${missing}", which the target does not have; pass --closure to copy both`,
    );
  }

  async #lookUp(
    paths: readonly StorePath[],
    { signal }: AbortOptions = {},
  ): Promise<readonly (PathInfo | undefined)[]> {
    const found: (PathInfo | undefined)[] = [];
    for (let at = 0; at < paths.length; at += PATHS_PER_LOOKUP) {
      const batch = paths.slice(at, at + PATHS_PER_LOOKUP).map(({ hashPart }) => hashPart);
      found.push(...(await this.#target.pathInfoService.getMany(batch, { signal })));
    }
    return found;
  }
}
