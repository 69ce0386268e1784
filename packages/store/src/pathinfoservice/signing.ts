import { readFile } from "node:fs/promises";
import { type AbortOptions, systemReason } from "@tvix/castore";
import { inContext, StoreError } from "../errors.ts";
import { fingerprint, SigningKey } from "../nix/signature.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoPage } from "./path-info-page.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

/** Options of {@link SigningPathInfoService}. */
export interface SigningOptions {
  /** Stores the signed PathInfos. Not disposed of with the service. */
  inner: PathInfoService;
  key: SigningKey;
}

/**
 * Signs every PathInfo that is put with a key of its own, and passes it on to another service. An earlier signature by
 * the name of that key is replaced.
 */
export class SigningPathInfoService implements PathInfoService {
  readonly #inner: PathInfoService;
  readonly #key: SigningKey;

  constructor({ inner, key }: SigningOptions) {
    this.#inner = inner;
    this.#key = key;
  }

  get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    return this.#inner.get(hashPart, options);
  }

  getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    return this.#inner.getMany(hashParts, options);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    const others = pathInfo.signatures.filter(({ name }) => name !== this.#key.name);
    const signatures = [...others, this.#key.sign(fingerprint(pathInfo))];
    return await this.#inner.put({ ...pathInfo, signatures }, options);
  }

  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo> {
    return this.#inner.list(options);
  }

  listPages(options?: ListPathInfosOptions): AsyncIterable<PathInfoPage> {
    return this.#inner.listPages(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // It holds only the key.
  }
}

/**
 * Reads a secret key from a file, as `nix-store --generate-binary-cache-key` writes it.
 *
 * @throws StoreError `not_found` or `permission_denied` if it cannot be read, `invalid_argument` if it holds no
 *   key; the message does not show the contents
 */
export async function readSigningKey(path: string | Buffer): Promise<SigningKey> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const failure = error as NodeJS.ErrnoException;
    throw new StoreError(
      failure.code === "ENOENT" ? "not_found" : "permission_denied",
      `Cannot read signing key "${path}": ${systemReason(failure)}`,
      { cause: error },
    );
  }
  return inContext(`Cannot read signing key "${path}"`, () => SigningKey.parse(text.trim()));
}
