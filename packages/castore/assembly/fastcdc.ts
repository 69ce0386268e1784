// The inner loop of FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data
// Deduplication Based Storage Systems", 2020), which rolls two bytes at a time. The memory is one
// page: the gear table, the same table shifted left by one, and the window of bytes to examine.

/** Where the gear table stands: 256 words of 64 bits, little-endian. */
const GEAR: usize = 0;
/** Where each word of the gear table stands shifted left by one. */
const GEAR_SHIFTED: usize = 2048;
/** Where the window begins. */
export const WINDOW: usize = 4096;

/** The rolling hash, carried from one call to the next. */
export let hash: u64 = 0;

/**
 * Rolls the hash over the first `pairs` pairs of bytes in the window. Stops at the first byte at
 * which the hash has no bit of the mask.
 *
 * @returns the position of that byte in the window, or -1 if there is none
 */
export function scan(pairs: i32, mask: u64): i32 {
  // The hash after the even byte of a pair is kept shifted by one, which saves a shift per pair.
  const maskShifted = mask << 1;
  const end = WINDOW + ((pairs as usize) << 1);
  let rolled = hash;
  for (let at = WINDOW; at < end; at += 2) {
    rolled = (rolled << 2) + load<u64>(GEAR_SHIFTED + ((load<u8>(at) as usize) << 3));
    if ((rolled & maskShifted) === 0) return (at - WINDOW) as i32;
    rolled += load<u64>(GEAR + ((load<u8>(at, 1) as usize) << 3));
    if ((rolled & mask) === 0) return (at + 1 - WINDOW) as i32;
  }
  hash = rolled;
  return -1;
}
