let memory = new Uint8Array(0);

/** Returns memory that this thread keeps, for contents that nobody looks at after the next call. */
export function scratch(length: number): Uint8Array {
  if (memory.length < length) memory = new Uint8Array(length);
  return memory.subarray(0, length);
}
