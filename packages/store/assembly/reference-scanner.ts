// Finds which of a set of words occur in a stream of bytes. Words are the hash parts of store paths: 32
// characters of nixbase32. As in Boyer and Moore's search, a place of 32 bytes is looked at from its end:
// a byte that is no such character, at which most places end soon, rules out every place that contains it.

const WORD: usize = 32;

/** Takes the bytes to examine. */
export const WINDOW_SIZE: i32 = 65536;
export const WINDOW: usize = memory.data(65536);
/** 256 bytes: 1 for each byte that is a character of nixbase32. */
export const IN_ALPHABET: usize = memory.data(256);

/** An entry is a word, and the number of the last scan that found it. */
const ENTRY: usize = 36;
const ENTRIES_SIZE: usize = 36 * 1820;
/** Where the next entry goes, and where the room for entries ends. */
let nextEntry: usize = 0;
let entriesEnd: usize = 0;

/** A table of addresses of entries, 0 where a slot is free; at most three quarters of it are in use. */
let slots: usize = 0;
let slotBits: u64 = 0;
/** Eight bits for each slot, of which a hash over the first 8 characters of each word sets one: it tells of
 * most places that there is no word, and is small enough for the caches of a processor. */
let filter: usize = 0;
/** How many words there are. */
export let count: i32 = 0;

/** An odd number that nobody knows, so that nobody can make words that fall into the same slots. */
let multiplier: u64 = 1;
/** Where in the window {@link scan} goes on. */
export let position: i32 = 0;

/** Sets what hashes are made with: an odd number, before the first word is added. */
export function seed(value: u64): void {
  multiplier = value;
}

/** Adds the word at the beginning of the window. */
export function add(): void {
  if (slots === 0 || (count + 1) * 4 > (1 << (slotBits as i32)) * 3) grow();
  const slot = slotOf(WINDOW);
  if (load<u32>(slot) !== 0) return;
  if (nextEntry === entriesEnd) {
    nextEntry = heap.alloc(ENTRIES_SIZE);
    entriesEnd = nextEntry + ENTRIES_SIZE;
  }
  memory.copy(nextEntry, WINDOW, WORD);
  store<u32>(nextEntry, 0, WORD);
  store<u32>(slot, nextEntry as u32);
  nextEntry += ENTRY;
  count += 1;
  setFilterBit(WINDOW);
}

/**
 * Looks for words between {@link position} and `end` in the window, and sets the position after what it has
 * examined: to be called until it finds nothing.
 *
 * @param id number of the scan, which is told of a word once
 * @returns address of the word that was found, 0 if there is none
 */
export function scan(end: i32, id: u32): usize {
  if (slots === 0) grow();
  const stop = WINDOW + (end as usize);
  const shift = filterShift();
  const bits = filter;
  let start = WINDOW + (position as usize);
  // Up to here every byte since the start is known to be in the alphabet.
  let known = start;
  while (start + WORD <= stop) {
    let at = start + WORD - 1;
    while (at >= known && inAlphabet(at)) at -= 1;
    const excluded = at >= known;
    known = start + WORD;
    if (excluded) {
      start = at + 1;
      continue;
    }
    // There is a place at the start, and one more with each further byte that is in the alphabet.
    while (true) {
      const bit = filterBit(start, shift);
      if ((load<u8>(bits + ((bit >> 3) as usize)) >> ((bit & 7) as u8)) & 1) {
        const entry = load<u32>(slotOf(start)) as usize;
        if (entry !== 0 && load<u32>(entry, WORD) !== id) {
          store<u32>(entry, id, WORD);
          position = (start + 1 - WINDOW) as i32;
          return entry;
        }
      }
      start += 1;
      if (known >= stop || !inAlphabet(known)) break;
      known += 1;
    }
  }
  position = (start - WINDOW) as i32;
  return 0;
}

function inAlphabet(at: usize): bool {
  return load<u8>(IN_ALPHABET + (load<u8>(at) as usize)) !== 0;
}

function filterShift(): u64 {
  return 64 - 3 - slotBits;
}

function filterBit(word: usize, shift: u64): u64 {
  return (load<u64>(word) * 0x1e3779b97f4a7d) >> shift;
}

function setFilterBit(word: usize): void {
  const bit = filterBit(word, filterShift());
  const byte = filter + ((bit >> 3) as usize);
  store<u8>(byte, load<u8>(byte) | (1 << ((bit & 7) as u8)));
}

/** The slot of a word, or the free one where it would be. */
function slotOf(word: usize): usize {
  let hash = load<u64>(word) * multiplier + load<u64>(word, 8);
  hash = hash * multiplier + load<u64>(word, 16);
  hash = (hash * multiplier + load<u64>(word, 24)) * multiplier;
  const last = ((1 as u64) << slotBits) - 1;
  let index = hash >> (64 - slotBits);
  while (true) {
    const slot = slots + ((index as usize) << 2);
    const entry = load<u32>(slot) as usize;
    if (entry === 0 || memory.compare(entry, word, WORD) === 0) return slot;
    index = (index + 1) & last;
  }
}

/** Doubles the table, and the filter. What they were made of stays unused: all of it is less than they are. */
function grow(): void {
  const old = slots;
  const oldSize: usize = old === 0 ? 0 : (4 as usize) << (slotBits as usize);
  slotBits = old === 0 ? 8 : slotBits + 1;
  const count: usize = (1 as usize) << (slotBits as usize);
  slots = heap.alloc(count << 2);
  memory.fill(slots, 0, count << 2);
  filter = heap.alloc(count);
  memory.fill(filter, 0, count);
  for (let at: usize = 0; at < oldSize; at += 4) {
    const entry = load<u32>(old + at) as usize;
    if (entry === 0) continue;
    store<u32>(slotOf(entry), entry as u32);
    setFilterBit(entry);
  }
}
