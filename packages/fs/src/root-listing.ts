import type { RootPage } from "./need.ts";
import { PackedDirectory } from "./packed-directory.ts";

interface Page {
  readonly entries: PackedDirectory;
  /** Index of the first entry in the root. */
  readonly first: number;
  readonly isLast: boolean;
}

/**
 * A listing of the root that is open: one page of store paths, and where each page began, so that a program can go back
 * to an offset that it was told.
 */
export class RootListing {
  /** Index of the first entry of each page, and the hash part of the store path before it. */
  readonly #pages: { readonly first: number; readonly after: Uint8Array | undefined }[] = [
    { first: 0, after: undefined },
  ];
  #held: { readonly number: number; readonly page: Page } | undefined;

  /** Returns the number of the page that has an entry, of the pages that are known. */
  pageOf(index: number): number {
    let number = this.#pages.length - 1;
    while (number > 0 && this.#pages[number]!.first > index) number -= 1;
    return number;
  }

  /** Returns the hash part before the page that has an entry; `undefined` for the first page. */
  cursorOf(index: number): Uint8Array | undefined {
    return this.#pages[this.pageOf(index)]!.after;
  }

  /** Returns the page that has an entry, or the last one; `undefined` if it has to be fetched. */
  page(index: number): Page | undefined {
    return this.#held?.number === this.pageOf(index) ? this.#held.page : undefined;
  }

  /** Takes a page that was fetched. */
  use(number: number, { entries: packed, next }: RootPage): void {
    const entries = new PackedDirectory(packed);
    const { first } = this.#pages[number]!;
    this.#held = { number, page: { entries, first, isLast: next === undefined } };
    if (next === undefined || number < this.#pages.length - 1) return;
    this.#pages.push({ first: first + entries.length, after: next });
  }
}
