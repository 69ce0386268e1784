/** Memory that is used again and again, for what nobody looks at after the next {@link take}. */
export class Scratch {
  #memory = new Uint8Array(0);

  /** Returns memory of a length. What is in it means nothing. */
  readonly take = (length: number): Uint8Array<ArrayBuffer> => {
    if (this.#memory.length < length) this.#memory = new Uint8Array(length);
    return this.#memory.subarray(0, length);
  };
}
