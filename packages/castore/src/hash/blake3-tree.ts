import { instantiateWasm } from "../bytes/wasm.ts";
import { BLAKE3_KERNEL } from "../gen/blake3-kernel.ts";

/** Length of a group of a blob in bytes; the last group may be shorter. */
export const GROUP_BYTES: number = 16 * 1024;

/** Length of a chaining value in bytes. */
export const VALUE_BYTES = 32;

/** Longest input of {@link hashGroups} in bytes, a multiple of {@link GROUP_BYTES}. */
export const MAX_HASHED_BYTES: number = 16 * GROUP_BYTES;

/** Number of BLAKE3 chunks in a group. */
const CHUNKS_PER_GROUP = 16n;

/** Exports of the WebAssembly module. */
interface KernelExports {
  memory: { readonly buffer: ArrayBuffer };
  INPUT: { readonly value: number };
  VALUES: { readonly value: number };
  hashGroups(length: number, counter: bigint): void;
  hashParent(isRoot: boolean): void;
}

interface Kernel {
  readonly exports: KernelExports;
  readonly input: Uint8Array;
  readonly values: Uint8Array;
}

let shared: Kernel | undefined;

/** One instance for each thread: a call is never interrupted. */
function kernel(): Kernel {
  shared ??= createKernel();
  return shared;
}

function createKernel(): Kernel {
  const exports = instantiateWasm(BLAKE3_KERNEL) as KernelExports;
  const { buffer } = exports.memory;
  return {
    exports,
    input: new Uint8Array(buffer, exports.INPUT.value, MAX_HASHED_BYTES),
    values: new Uint8Array(buffer, exports.VALUES.value, 16 * VALUE_BYTES),
  };
}

/**
 * Computes the chaining values of groups of a blob that has more than one group.
 *
 * @param data up to {@link MAX_HASHED_BYTES}. All groups in it but the last are whole
 * @param index index of the first group in the blob
 * @returns the values in order, lent until the next call of a function of this file
 */
export function hashGroups(data: Uint8Array, index: number): Uint8Array {
  const { exports, input, values } = kernel();
  input.set(data);
  exports.hashGroups(data.length, BigInt(index) * CHUNKS_PER_GROUP);
  return values.subarray(0, Math.ceil(data.length / GROUP_BYTES) * VALUE_BYTES);
}

/**
 * Computes the chaining value of the parent of two nodes; for the root, the digest.
 *
 * @param values the values of the two nodes, concatenated
 * @returns the value, lent until the next call of a function of this file
 */
export function hashParent(values: Uint8Array, isRoot: boolean): Uint8Array {
  const { exports, values: memory } = kernel();
  memory.set(values);
  exports.hashParent(isRoot);
  return memory.subarray(0, VALUE_BYTES);
}
