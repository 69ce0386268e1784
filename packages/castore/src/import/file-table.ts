import { B3Digest } from "../model/digest.ts";
import type { FileNode } from "../model/node.ts";

/** Files in a page. */
const PAGE_FILES = 4096;

/** Columns of some of the files. */
interface Page {
  readonly digests: Uint8Array;
  readonly sizes: Float64Array;
  readonly executable: Uint8Array;
}

/** Keeps files by number, from 0 on, in a tenth of the memory that nodes would take. */
export class FileTable {
  readonly #pages: Page[] = [];
  #length = 0;

  /** Adds a file without a digest. Returns its number. */
  add({ size, executable }: { size: number; executable: boolean }): number {
    const number = this.#length++;
    const i = number % PAGE_FILES;
    if (i === 0) {
      this.#pages.push({
        digests: new Uint8Array(PAGE_FILES * B3Digest.LENGTH),
        sizes: new Float64Array(PAGE_FILES),
        executable: new Uint8Array(PAGE_FILES),
      });
    }
    const page = this.#page(number);
    page.sizes[i] = size;
    page.executable[i] = Number(executable);
    return number;
  }

  setDigest(number: number, { bytes }: B3Digest): void {
    this.#page(number).digests.set(bytes, (number % PAGE_FILES) * B3Digest.LENGTH);
  }

  /** Returns the node of a file whose digest was set. */
  node(number: number): FileNode {
    const { digests, sizes, executable } = this.#page(number);
    const i = number % PAGE_FILES;
    const digest = digests.slice(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    return {
      type: "file",
      digest: B3Digest.fromBytes(digest),
      size: BigInt(sizes[i]!),
      executable: executable[i] === 1,
    };
  }

  #page(number: number): Page {
    return this.#pages[Math.floor(number / PAGE_FILES)]!;
  }
}
