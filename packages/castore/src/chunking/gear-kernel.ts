import { createHash } from "node:crypto";
import { instantiateWasm } from "../bytes/wasm.ts";
import { FASTCDC_KERNEL } from "../gen/fastcdc-kernel.ts";

/** How many bytes {@link GearKernel.scan} examines at most. Even. */
export const WINDOW_SIZE: number = 32 * 1024;

/**
 * The loop that looks for cut points, compiled to WebAssembly. It keeps the rolling hash from one
 * call to the next; whoever scans sets the hash first and takes it away after.
 */
export interface GearKernel {
  /** Takes the bytes to examine, {@link WINDOW_SIZE} of them at most. */
  readonly window: Uint8Array;
  /** The rolling hash, an unsigned 64-bit integer; reads as a signed one. */
  hash: bigint;
  /**
   * Rolls the hash over the first `length` bytes of the window, an even number. Stops at the first
   * byte at which the hash has no bit of `mask`.
   *
   * @returns the position of that byte in the window, or -1 if there is none
   */
  scan(length: number, mask: bigint): number;
}

/** What the WebAssembly module exports. */
interface KernelExports {
  memory: { readonly buffer: ArrayBuffer };
  hash: { value: bigint };
  WINDOW: { readonly value: number };
  scan(pairs: number, mask: bigint): number;
}

let shared: GearKernel | undefined;

/**
 * The kernel, made on first use. There is one for all chunkers of a thread, because a scan is never
 * interrupted and a WebAssembly memory for each open blob would be costly.
 */
export function gearKernel(): GearKernel {
  shared ??= createKernel();
  return shared;
}

function createKernel(): GearKernel {
  const kernel = instantiateWasm(FASTCDC_KERNEL) as KernelExports;
  writeGearTables(new DataView(kernel.memory.buffer));
  return {
    window: new Uint8Array(kernel.memory.buffer, kernel.WINDOW.value, WINDOW_SIZE),
    get hash() {
      return kernel.hash.value;
    },
    set hash(hash) {
      kernel.hash.value = hash;
    },
    scan: (length, mask) => kernel.scan(length >>> 1, mask),
  };
}

/**
 * Writes the gear table, and after it the same table shifted left by one: 256 words each. The word of
 * a byte is what FastCDC's authors published: the first 8 bytes, big-endian, of the MD5 of 64 bytes
 * of that value.
 */
function writeGearTables(memory: DataView): void {
  for (let byte = 0; byte < 256; byte++) {
    const md5 = createHash("md5").update(Buffer.alloc(64, byte)).digest();
    const word = md5.readBigUInt64BE();
    memory.setBigUint64(byte * 8, word, true);
    memory.setBigUint64((256 + byte) * 8, word << 1n, true); // the top bit falls off
  }
}
