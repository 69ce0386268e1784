import { isCanonicalPathInfo } from "../canonical-path-info.ts";
import { decodePathInfo, encodePathInfo } from "../convert.ts";
import type { PathInfo } from "../pathinfo.ts";

/** PathInfos of a listing, which are decoded one by one when they are iterated. */
export class PathInfoPage implements Iterable<PathInfo> {
  readonly #items: readonly (PathInfo | Uint8Array)[];

  private constructor(items: readonly (PathInfo | Uint8Array)[]) {
    this.#items = items;
  }

  /** Makes a page of PathInfos, and of encoded ones. For the latter see {@link validated}. */
  static of(items: readonly (PathInfo | ValidPathInfo)[]): PathInfoPage {
    return new PathInfoPage(items);
  }

  get length(): number {
    return this.#items.length;
  }

  /** Decodes each of them. */
  *[Symbol.iterator](): Generator<PathInfo> {
    for (const item of this.#items) {
      yield item instanceof Uint8Array ? decodePathInfo(item) : item;
    }
  }

  /** Yields the canonical encoding of each, which must not be changed. */
  *encoded(): Generator<Uint8Array> {
    for (const item of this.#items) {
      yield item instanceof Uint8Array ? item : encodePathInfo(item);
    }
  }
}

declare const valid: unique symbol;

/** The canonical encoding of a valid PathInfo. Made by {@link validated}. */
export type ValidPathInfo = Uint8Array & { readonly [valid]: true };

/**
 * Validates an encoded PathInfo, without a copy. Decodes it only if it is not in its canonical encoding.
 *
 * @param hashPart that of its store path. Default: any
 * @returns `undefined` for what has to be decoded
 */
export function validated(bytes: Uint8Array, hashPart?: Uint8Array): ValidPathInfo | undefined {
  return isCanonicalPathInfo(bytes, hashPart) ? (bytes as ValidPathInfo) : undefined;
}

/**
 * Yields the PathInfos of pages one by one.
 *
 * @param signal ends it, also within a page
 */
export async function* eachOf(
  pages: AsyncIterable<PathInfoPage>,
  signal?: AbortSignal,
): AsyncGenerator<PathInfo> {
  for await (const page of pages) {
    for (const pathInfo of page) {
      signal?.throwIfAborted();
      yield pathInfo;
    }
  }
}
