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
 * Yields the PathInfos of pages one by one. One call of `next` at a time.
 *
 * @param signal ends it, also within a page
 */
export function eachOf(
  pages: AsyncIterable<PathInfoPage>,
  signal?: AbortSignal,
): AsyncIterableIterator<PathInfo> {
  return new PathInfosOfPages(pages, signal);
}

/** An async generator takes several times as long for each PathInfo of a page that is there. */
class PathInfosOfPages implements AsyncIterableIterator<PathInfo> {
  readonly #pages: AsyncIterator<PathInfoPage>;
  readonly #signal: AbortSignal | undefined;
  #page: Iterator<PathInfo> | undefined;
  #isOver = false;

  constructor(pages: AsyncIterable<PathInfoPage>, signal: AbortSignal | undefined) {
    this.#pages = pages[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<PathInfo>> {
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    try {
      const next = this.#page?.next();
      if (next?.done === false) {
        this.#signal?.throwIfAborted();
        return Promise.resolve(next);
      }
    } catch (error) {
      return this.#fail(error);
    }
    return this.#nextPage();
  }

  async return(): Promise<IteratorResult<PathInfo>> {
    if (!this.#isOver) {
      this.#isOver = true;
      await this.#pages.return?.();
    }
    return { done: true, value: undefined };
  }

  async #nextPage(): Promise<IteratorResult<PathInfo>> {
    try {
      const { done, value: page } = await this.#pages.next();
      if (done) {
        this.#isOver = true;
        return { done: true, value: undefined };
      }
      this.#page = page[Symbol.iterator]();
    } catch (error) {
      this.#isOver = true;
      throw error;
    }
    return await this.next();
  }

  async #fail(error: unknown): Promise<never> {
    await this.return();
    throw error;
  }
}
