// The tree of BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), as far as hashing the whole of something does
// not give it: the chaining values of groups of 16 chunks, and of two nodes together. The four rows of the state are
// vectors, so that four columns, or four diagonals, are mixed at once.

/** The bytes to hash. */
export const INPUT: usize = 4096;
/** How many bytes are taken at most: 16 groups. */
export const INPUT_SIZE: u32 = 262144;
/** Where chaining values come out, and where the two of a parent are put in. */
export const VALUES: usize = 1024;

/** Chaining values of complete subtrees, the largest first. */
const STACK: usize = 2048;

const CHUNK_SIZE: u32 = 1024;
const GROUP_SIZE: u32 = 16384;
const BLOCK_SIZE: u32 = 64;
const VALUE_SIZE: u32 = 32;

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

function initialLow(): v128 {
  return i32x4(0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a);
}

function initialHigh(): v128 {
  return i32x4(0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19);
}

function rotate16(v: v128): v128 {
  return i8x16.shuffle(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}

function rotate8(v: v128): v128 {
  return i8x16.shuffle(v, v, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12);
}

function rotate(v: v128, right: i32): v128 {
  return v128.or(i32x4.shr_u(v, right), i32x4.shl(v, 32 - right));
}

/** Compresses a block into the chaining value at `value`. The bytes behind `length` are zeros. */
function compress(value: usize, block: usize, counter: u64, length: u32, flags: u32): void {
  let a = v128.load(value);
  let b = v128.load(value, 16);
  let c = initialLow();
  let d = i32x4.splat(counter as u32);
  d = i32x4.replace_lane(d, 1, (counter >> 32) as u32);
  d = i32x4.replace_lane(d, 2, length);
  d = i32x4.replace_lane(d, 3, flags);

  const m0 = v128.load(block);
  const m1 = v128.load(block, 16);
  const m2 = v128.load(block, 32);
  const m3 = v128.load(block, 48);
  // The words of even and of odd position, of the first and of the second half.
  let even = v128.shuffle<u32>(m0, m1, 0, 2, 4, 6);
  let odd = v128.shuffle<u32>(m0, m1, 1, 3, 5, 7);
  let evenHigh = v128.shuffle<u32>(m2, m3, 0, 2, 4, 6);
  let oddHigh = v128.shuffle<u32>(m2, m3, 1, 3, 5, 7);

  for (let round = 0; ; ) {
    a = i32x4.add(i32x4.add(a, b), even);
    d = rotate16(v128.xor(d, a));
    c = i32x4.add(c, d);
    b = rotate(v128.xor(b, c), 12);
    a = i32x4.add(i32x4.add(a, b), odd);
    d = rotate8(v128.xor(d, a));
    c = i32x4.add(c, d);
    b = rotate(v128.xor(b, c), 7);

    b = v128.shuffle<u32>(b, b, 1, 2, 3, 0);
    c = v128.shuffle<u32>(c, c, 2, 3, 0, 1);
    d = v128.shuffle<u32>(d, d, 3, 0, 1, 2);

    a = i32x4.add(i32x4.add(a, b), evenHigh);
    d = rotate16(v128.xor(d, a));
    c = i32x4.add(c, d);
    b = rotate(v128.xor(b, c), 12);
    a = i32x4.add(i32x4.add(a, b), oddHigh);
    d = rotate8(v128.xor(d, a));
    c = i32x4.add(c, d);
    b = rotate(v128.xor(b, c), 7);

    b = v128.shuffle<u32>(b, b, 3, 0, 1, 2);
    c = v128.shuffle<u32>(c, c, 2, 3, 0, 1);
    d = v128.shuffle<u32>(d, d, 1, 2, 3, 0);

    round += 1;
    if (round === 7) break;
    // The words for the next round: 2 6 3 10 7 0 4 13 1 11 12 5 9 14 15 8 of those of this one.
    const nextEven = v128.shuffle<u32>(even, odd, 1, 5, 7, 2);
    const nextOdd = v128.shuffle<u32>(
      v128.shuffle<u32>(even, evenHigh, 3, 5, 0, 0),
      oddHigh,
      0,
      1,
      2,
      6,
    );
    const nextEvenHigh = v128.shuffle<u32>(
      v128.shuffle<u32>(odd, evenHigh, 0, 6, 0, 0),
      oddHigh,
      0,
      1,
      4,
      7,
    );
    const nextOddHigh = v128.shuffle<u32>(
      v128.shuffle<u32>(oddHigh, odd, 1, 6, 0, 0),
      evenHigh,
      0,
      1,
      7,
      4,
    );
    even = nextEven;
    odd = nextOdd;
    evenHigh = nextEvenHigh;
    oddHigh = nextOddHigh;
  }
  v128.store(value, v128.xor(a, c));
  v128.store(value, v128.xor(b, d), 16);
}

function begin(value: usize): void {
  v128.store(value, initialLow());
  v128.store(value, initialHigh(), 16);
}

/** The chaining value of a chunk of 1 to 1024 bytes. What follows it up to a whole block is overwritten. */
function chunk(value: usize, input: usize, length: u32, counter: u64): void {
  begin(value);
  let flags = CHUNK_START;
  while (length > BLOCK_SIZE) {
    compress(value, input, counter, BLOCK_SIZE, flags);
    input += BLOCK_SIZE;
    length -= BLOCK_SIZE;
    flags = 0;
  }
  for (let at = length; at < BLOCK_SIZE; at++) store<u8>(input + at, 0);
  compress(value, input, counter, length, flags | CHUNK_END);
}

/** Puts the value of the parent of two nodes, which stand behind one another, in place of the first. */
function parent(values: usize, flags: u32): void {
  const block0 = v128.load(values);
  const block1 = v128.load(values, 16);
  const block2 = v128.load(values, 32);
  const block3 = v128.load(values, 48);
  v128.store(SCRATCH, block0);
  v128.store(SCRATCH, block1, 16);
  v128.store(SCRATCH, block2, 32);
  v128.store(SCRATCH, block3, 48);
  begin(values);
  compress(values, SCRATCH, 0, BLOCK_SIZE, PARENT | flags);
}

/** Where a block of two values is put together. */
const SCRATCH: usize = 0;

/**
 * Computes the chaining value of each group in the input, none of which is all there is. They come out in order.
 *
 * @param length how many bytes there are. All groups but the last are whole, which is of at least one byte
 * @param counter how many chunks come before them
 */
export function hashGroups(length: u32, counter: u64): void {
  let value = VALUES;
  for (let at: u32 = 0; at < length; at += GROUP_SIZE) {
    hashGroup(INPUT + at, min(GROUP_SIZE, length - at), counter);
    counter += GROUP_SIZE / CHUNK_SIZE;
    v128.store(value, v128.load(STACK));
    v128.store(value, v128.load(STACK, 16), 16);
    value += VALUE_SIZE;
  }
}

function hashGroup(input: usize, length: u32, counter: u64): void {
  let top: usize = STACK;
  let count: u32 = 0;
  for (let at: u32 = 0; at < length; at += CHUNK_SIZE) {
    chunk(top, input + at, min(CHUNK_SIZE, length - at), counter + count);
    top += VALUE_SIZE;
    count += 1;
    if (at + CHUNK_SIZE >= length) break;
    for (let even = count; (even & 1) === 0; even >>= 1) {
      top -= VALUE_SIZE;
      parent(top - VALUE_SIZE, 0);
    }
  }
  while (top > STACK + VALUE_SIZE) {
    top -= VALUE_SIZE;
    parent(top - VALUE_SIZE, 0);
  }
}

/** Computes the value of the parent of the two nodes whose values were put in: of the root, the digest. */
export function hashParent(isRoot: bool): void {
  parent(VALUES, isRoot ? ROOT : 0);
}
