const FIRST_CAPACITY = 1024;

/**
 * Returns the memory of numbers, for so many of them: further ones are 0. The array is empty afterwards. Memory that was
 * copied would stay until the garbage collector comes, which took as much again as the table.
 */
export function lengthen(array: Column, length: number): ArrayBuffer {
  return array.buffer.transfer(length * array.BYTES_PER_ELEMENT);
}

/** Numbers that have all of their memory. */
type Column = { readonly buffer: ArrayBuffer; readonly BYTES_PER_ELEMENT: number };

/** Gives numbers slots in a table: open addressing in typed arrays, of some 16 bytes a number. */
export class SlotMap {
  readonly #onGrow: (capacity: number) => void;
  #ids = new Float64Array(FIRST_CAPACITY);
  /** For each place of the hash table the slot in it, plus one; 0 if it is empty. Twice as long as there are slots. */
  #places = new Uint32Array(2 * FIRST_CAPACITY);
  /** Slots that were given back. */
  readonly #free: number[] = [];
  #used = 0;

  /** @param onGrow is called with the number of slots that there are from now on, before one of them is given */
  constructor(onGrow: (capacity: number) => void) {
    this.#onGrow = onGrow;
  }

  /** How many slots there are. */
  get capacity(): number {
    return this.#ids.length;
  }

  /** How many numbers have one. */
  get size(): number {
    return this.#used - this.#free.length;
  }

  /** Returns the slot of a number; -1 if it has none. */
  get(id: number): number {
    return this.#places[this.#placeOf(id)]! - 1;
  }

  /** Gives a slot to a number that has none, and returns it. */
  add(id: number): number {
    if (this.size === this.capacity) this.#grow();
    const slot = this.#free.pop() ?? this.#used++;
    this.#ids[slot] = id;
    this.#places[this.#placeOf(id)] = slot + 1;
    return slot;
  }

  /** Takes the slot of a number back. */
  delete(id: number): void {
    let hole = this.#placeOf(id);
    const slot = this.#places[hole]! - 1;
    if (slot < 0) return;
    this.#free.push(slot);
    this.#places[hole] = 0;
    const mask = this.#places.length - 1;
    // What stands behind the hole moves into it, unless it would come before the place where it is looked for first.
    for (let at = (hole + 1) & mask; this.#places[at] !== 0; at = (at + 1) & mask) {
      const home = this.#homeOf(this.#ids[this.#places[at]! - 1]!);
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#places[hole] = this.#places[at]!;
      this.#places[at] = 0;
      hole = at;
    }
  }

  #homeOf(id: number): number {
    return (id % 0x1_0000_0000) & (this.#places.length - 1);
  }

  /** Returns the place that has a number, or the empty one where it would be. */
  #placeOf(id: number): number {
    const mask = this.#places.length - 1;
    for (let at = this.#homeOf(id); ; at = (at + 1) & mask) {
      const slot = this.#places[at]! - 1;
      if (slot < 0 || this.#ids[slot] === id) return at;
    }
  }

  #grow(): void {
    this.#ids = new Float64Array(lengthen(this.#ids, 2 * this.capacity));
    this.#places = new Uint32Array(lengthen(this.#places, 2 * this.capacity));
    this.#places.fill(0);
    for (let slot = 0; slot < this.#used; slot++)
      this.#places[this.#placeOf(this.#ids[slot]!)] = slot + 1;
    this.#onGrow(this.capacity);
  }
}
