import { readSync, writeSync } from "node:fs";
import { CastoreError } from "@tvix/castore";

/** A part of the memory of a guest, which a file holds. */
export interface MemoryRegion {
  /** Where the guest sees it. */
  readonly guestAddress: number;
  /** Where the process of the virtual machine sees it. */
  readonly userAddress: number;
  readonly size: number;
  readonly fd: number;
  /** Where it begins in the file. */
  readonly offset: number;
}

/** Whose addresses are meant. */
export type AddressSpace = "guestAddress" | "userAddress";

/** The memory of a guest, read and written through its files. Node cannot map it, which needs no more than this. */
export class GuestMemory {
  readonly regions: readonly MemoryRegion[];

  constructor(regions: readonly MemoryRegion[] = []) {
    this.regions = regions;
  }

  /**
   * Fills a buffer from an address on.
   *
   * @throws CastoreError `invalid_argument` for addresses outside of the memory
   */
  read(to: Uint8Array, address: number, space: AddressSpace = "guestAddress"): void {
    const { fd, position } = this.#locate(address, to.length, space);
    const length = readSync(fd, to, 0, to.length, position);
    if (length < to.length) throw outside(address, to.length);
  }

  /**
   * Writes bytes from an address on.
   *
   * @throws CastoreError `invalid_argument` for addresses outside of the memory
   */
  write(bytes: Uint8Array, address: number, space: AddressSpace = "guestAddress"): void {
    const { fd, position } = this.#locate(address, bytes.length, space);
    if (writeSync(fd, bytes, 0, bytes.length, position) < bytes.length) {
      throw outside(address, bytes.length);
    }
  }

  #locate(address: number, length: number, space: AddressSpace): { fd: number; position: number } {
    for (const region of this.regions) {
      const at = address - region[space];
      if (at < 0 || at + length > region.size) continue;
      return { fd: region.fd, position: region.offset + at };
    }
    throw outside(address, length);
  }
}

function outside(address: number, length: number): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot access the memory of the guest: expected ${length} bytes at 0x${address.toString(16)}, found none there`,
  );
}
