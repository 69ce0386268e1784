// The tree of BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), as far as hashing the whole of something does
// not give it: the chaining values of groups of 16 chunks, and of two nodes together. The four rows of the state are
// vectors, so that four columns, or four diagonals, are mixed at once; of whole groups, four chunks are hashed at once.

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

/** The initial value, as it stands in memory. */
const INITIAL: usize = 64;
store<u64>(INITIAL, 0xbb67ae856a09e667);
store<u64>(INITIAL + 8, 0xa54ff53a3c6ef372);
store<u64>(INITIAL + 16, 0x9b05688c510e527f);
store<u64>(INITIAL + 24, 0x5be0cd191f83d9ab);

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

/** Four states of sixteen words, and four blocks, that are mixed side by side: a vector has one word of each. */
const STATES: usize = 3072;
const BLOCKS: usize = 3328;

/** A quarter of a round: mixes words of the state, by their positions, with two words of the block. */
@inline
function mix(a: usize, b: usize, c: usize, d: usize, x: usize, y: usize): void {
  let va = v128.load(STATES + a * 16);
  let vb = v128.load(STATES + b * 16);
  let vc = v128.load(STATES + c * 16);
  let vd = v128.load(STATES + d * 16);
  va = i32x4.add(i32x4.add(va, vb), v128.load(BLOCKS + x * 16));
  vd = rotate16(v128.xor(vd, va));
  vc = i32x4.add(vc, vd);
  vb = rotate(v128.xor(vb, vc), 12);
  va = i32x4.add(i32x4.add(va, vb), v128.load(BLOCKS + y * 16));
  vd = rotate8(v128.xor(vd, va));
  vc = i32x4.add(vc, vd);
  vb = rotate(v128.xor(vb, vc), 7);
  v128.store(STATES + a * 16, va);
  v128.store(STATES + b * 16, vb);
  v128.store(STATES + c * 16, vc);
  v128.store(STATES + d * 16, vd);
}

/** A round, with the words of the block in its order. */
@inline
function round(
  m0: usize, m1: usize, m2: usize, m3: usize, m4: usize, m5: usize, m6: usize, m7: usize,
  m8: usize, m9: usize, m10: usize, m11: usize, m12: usize, m13: usize, m14: usize, m15: usize,
): void {
  mix(0, 4, 8, 12, m0, m1);
  mix(1, 5, 9, 13, m2, m3);
  mix(2, 6, 10, 14, m4, m5);
  mix(3, 7, 11, 15, m6, m7);
  mix(0, 5, 10, 15, m8, m9);
  mix(1, 6, 11, 12, m10, m11);
  mix(2, 7, 8, 13, m12, m13);
  mix(3, 4, 9, 14, m14, m15);
}

/** Puts the first words of four vectors together, the second ones, and so on. They are `step`, then `apart` apart. */
@inline
function transpose(from: usize, step: usize, to: usize, apart: usize): void {
  const a = v128.load(from);
  const b = v128.load(from + step);
  const c = v128.load(from + 2 * step);
  const d = v128.load(from + 3 * step);
  const low = v128.shuffle<u32>(a, b, 0, 4, 1, 5);
  const lowBehind = v128.shuffle<u32>(c, d, 0, 4, 1, 5);
  const high = v128.shuffle<u32>(a, b, 2, 6, 3, 7);
  const highBehind = v128.shuffle<u32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<u64>(low, lowBehind, 0, 2));
  v128.store(to + apart, v128.shuffle<u64>(low, lowBehind, 1, 3));
  v128.store(to + 2 * apart, v128.shuffle<u64>(high, highBehind, 0, 2));
  v128.store(to + 3 * apart, v128.shuffle<u64>(high, highBehind, 1, 3));
}

/** The chaining values of four whole chunks, one behind the other at `value`. */
function fourChunks(value: usize, input: usize, counter: u64): void {
  for (let i: usize = 0; i < 8; i++) {
    v128.store(STATES + i * 16, i32x4.splat(load<i32>(INITIAL + i * 4)));
  }
  const counterLow = i32x4.add(i32x4.splat(counter as u32), i32x4(0, 1, 2, 3));
  const counterHigh = i32x4.splat((counter >> 32) as u32); // four chunks have it in common
  for (let block: u32 = 0; block < CHUNK_SIZE; block += BLOCK_SIZE) {
    const flags = (block === 0 ? CHUNK_START : 0) | (block + BLOCK_SIZE === CHUNK_SIZE ? CHUNK_END : 0);
    for (let i: usize = 0; i < BLOCK_SIZE; i += 16) {
      transpose(input + block + i, CHUNK_SIZE, BLOCKS + i * 4, 16);
    }
    for (let i: usize = 0; i < 4; i++) {
      v128.store(STATES + 128 + i * 16, i32x4.splat(load<i32>(INITIAL + i * 4)));
    }
    v128.store(STATES + 192, counterLow);
    v128.store(STATES + 208, counterHigh);
    v128.store(STATES + 224, i32x4.splat(BLOCK_SIZE));
    v128.store(STATES + 240, i32x4.splat(flags));
    round(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    round(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
    round(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
    round(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
    round(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
    round(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
    round(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
    for (let i: usize = 0; i < 128; i += 16) {
      v128.store(STATES + i, v128.xor(v128.load(STATES + i), v128.load(STATES + i, 128)));
    }
  }
  transpose(STATES, 16, value, VALUE_SIZE);
  transpose(STATES + 64, 16, value + 16, VALUE_SIZE);
}

/** Puts the value of the parent of two nodes, one behind the other, at `value`, which may be one of theirs. */
function parent(value: usize, values: usize, flags: u32): void {
  const block0 = v128.load(values);
  const block1 = v128.load(values, 16);
  const block2 = v128.load(values, 32);
  const block3 = v128.load(values, 48);
  v128.store(SCRATCH, block0);
  v128.store(SCRATCH, block1, 16);
  v128.store(SCRATCH, block2, 32);
  v128.store(SCRATCH, block3, 48);
  begin(value);
  compress(value, SCRATCH, 0, BLOCK_SIZE, PARENT | flags);
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
  if (length === GROUP_SIZE) {
    for (let at: u32 = 0; at < GROUP_SIZE; at += 4 * CHUNK_SIZE) {
      fourChunks(STACK + at / CHUNK_SIZE * VALUE_SIZE, input + at, counter + at / CHUNK_SIZE);
    }
    for (let count: u32 = 8; count > 0; count >>= 1) {
      for (let i: u32 = 0; i < count; i++) {
        parent(STACK + i * VALUE_SIZE, STACK + 2 * i * VALUE_SIZE, 0);
      }
    }
    return;
  }
  let top: usize = STACK;
  let count: u32 = 0;
  for (let at: u32 = 0; at < length; at += CHUNK_SIZE) {
    chunk(top, input + at, min(CHUNK_SIZE, length - at), counter + count);
    top += VALUE_SIZE;
    count += 1;
    if (at + CHUNK_SIZE >= length) break;
    for (let even = count; (even & 1) === 0; even >>= 1) {
      top -= VALUE_SIZE;
      parent(top - VALUE_SIZE, top - VALUE_SIZE, 0);
    }
  }
  while (top > STACK + VALUE_SIZE) {
    top -= VALUE_SIZE;
    parent(top - VALUE_SIZE, top - VALUE_SIZE, 0);
  }
}

/** Computes the value of the parent of the two nodes whose values were put in: of the root, the digest. */
export function hashParent(isRoot: bool): void {
  parent(VALUES, VALUES, isRoot ? ROOT : 0);
}
