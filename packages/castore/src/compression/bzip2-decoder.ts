import { quoteBytes } from "../bytes/byte-string.ts";

/** Memory of one decoder, whose steps may run in different threads. */
export interface Bzip2Memory {
  /** Compressed bytes. */
  readonly input: SharedArrayBuffer;
  /** The block in hand. An element is one of its bytes and, above it, the index of the byte that follows. */
  readonly block: SharedArrayBuffer;
  /** Takes the decompressed bytes of a step. */
  readonly output: SharedArrayBuffer;
}

/** Where a decoder stands between two steps. */
export interface Bzip2State {
  /** Bits of the input that were used. */
  bit: number;
  /** Longest block that the header of the stream allows, in bytes; 0 before the header. */
  maxBlock: number;
  /** Checksum of the blocks of the stream so far. */
  streamCrc: number;
  /** Whether a stream was read to its end. */
  complete: boolean;
  /** Whether zeros stand behind it, after which no other stream may come. */
  padded: boolean;
  /** Bytes of the block that are still to be expanded, and the index of the next one. */
  left: number;
  next: number;
  /** Checksum that the block states, and that of its bytes so far before the final inversion. */
  statedCrc: number;
  crc: number;
  /** The last byte, its occurrences in a row, and how often it has to be repeated. */
  last: number;
  run: number;
  repeat: number;
}

/** One step of a decoder. */
export interface Bzip2Task {
  readonly memory: Bzip2Memory;
  readonly state: Bzip2State;
  /** Bytes of input. */
  readonly length: number;
  /** Whether the compressed file ends behind them. If not, {@link MAX_BLOCK_INPUT} of them are not used yet. */
  readonly isLast: boolean;
}

/** Result of a step. */
export interface Bzip2Step {
  readonly state: Bzip2State;
  /** Bytes in the output. */
  readonly written: number;
  /** Whether the compressed file has ended. */
  readonly ended: boolean;
  /** What is wrong with the input behind the bytes in the output. */
  readonly fault?: string;
}

/** Longest block in compressed bytes: 900,000 codes of up to 20 bits, and the tables before them. */
export const MAX_BLOCK_INPUT = 2_400_000;

/** Longest block in bytes, before runs are expanded. */
const MAX_BLOCK = 900_000;

/** Bytes of input that fit into memory. */
export const INPUT_BYTES: number = 4 * 1024 * 1024;

/** Bytes of output that fit into memory. */
const OUTPUT_BYTES = 256 * 1024;

/** Blocks that may begin in one step: there may be a hundred thousand tiny ones in the input. */
const BLOCKS_PER_STEP = 256;

const BLOCK_MAGIC = 0x314159265359; // digits of pi
const END_MAGIC = 0x177245385090; // digits of its square root

const GROUP_CODES = 50;
const MAX_GROUPS = MAX_BLOCK / GROUP_CODES + 2;
const MAX_CODE_BITS = 20;
const MAX_RUN_BITS = 21;

/** Allocates the memory of a decoder, 8 MB. */
export function bzip2Memory(): Bzip2Memory {
  return {
    input: new SharedArrayBuffer(INPUT_BYTES),
    block: new SharedArrayBuffer(MAX_BLOCK * Uint32Array.BYTES_PER_ELEMENT),
    output: new SharedArrayBuffer(OUTPUT_BYTES),
  };
}

/** Returns the state before the first step. */
export function bzip2Start(): Bzip2State {
  return {
    bit: 0,
    maxBlock: 0,
    streamCrc: 0,
    complete: false,
    padded: false,
    left: 0,
    next: 0,
    statedCrc: 0,
    crc: 0,
    last: 0,
    run: 0,
    repeat: 0,
  };
}

/**
 * Decompresses bzip2 until the output is full or more input is needed: at most one block of 900 KB is decoded and
 * 256 KiB are expanded, however small the input is. Runs in a thread of the pool.
 *
 * Reads what bzip2 1.0.8 reads, except blocks that bzip2 before version 0.9.5 had randomised.
 */
export function decodeBzip2(task: Bzip2Task): Bzip2Step {
  const decoder = new Decoder(task);
  try {
    const ended = decoder.run();
    return { state: decoder.state, written: decoder.written, ended };
  } catch (error) {
    if (!(error instanceof Bzip2Error)) throw error;
    const fault = error.message;
    return { state: decoder.state, written: decoder.written, ended: true, fault };
  }
}

class Bzip2Error extends Error {
  override readonly name = "Bzip2Error";
}

/** A canonical Huffman code. The arrays have an element for each length of a code in bits. */
interface CodeTable {
  readonly shortest: number;
  /** Last code of the length. */
  readonly limits: Int32Array;
  /** What to subtract from a code of the length to get its index in `symbols`. */
  readonly bases: Int32Array;
  /** The symbols in order of their codes. */
  readonly symbols: Uint16Array;
}

class Decoder {
  written = 0;
  readonly state: Bzip2State;
  readonly #input: Uint8Array;
  readonly #block: Uint32Array;
  readonly #output: Uint8Array;
  readonly #isLast: boolean;
  readonly #endBit: number;

  constructor({ memory, state, length, isLast }: Bzip2Task) {
    this.state = { ...state };
    this.#input = new Uint8Array(memory.input);
    this.#block = new Uint32Array(memory.block);
    this.#output = new Uint8Array(memory.output);
    this.#isLast = isLast;
    this.#endBit = 8 * length;
  }

  /** Runs until there is something to wait for. Returns whether the compressed file has ended. */
  run(): boolean {
    const { state } = this;
    for (let blocks = 0; ; blocks++) {
      if (this.#isInBlock() && !this.#expand()) return false;
      if (blocks === BLOCKS_PER_STEP) return false;
      if (state.complete && state.maxBlock === 0) this.#skipZeros();
      const isUsedUp = state.bit === this.#endBit;
      if (this.#isLast && isUsedUp && state.complete && state.maxBlock === 0) return true;
      if (!this.#isLast && this.#endBit - state.bit < 8 * MAX_BLOCK_INPUT) return false;
      if (state.maxBlock === 0) this.#beginStream();
      this.#beginBlock();
    }
  }

  #isInBlock(): boolean {
    return this.state.left > 0 || this.state.repeat > 0;
  }

  #skipZeros(): void {
    const { state } = this;
    while (state.bit < this.#endBit && this.#input[state.bit >>> 3] === 0) {
      state.bit += 8;
      state.padded = true;
    }
  }

  #beginStream(): void {
    const { state } = this;
    const at = state.bit >>> 3;
    const header = this.#input.slice(at, Math.min(at + 4, this.#endBit >>> 3));
    const [b, z, h, level] = header;
    if (state.padded || b !== 0x42 || z !== 0x5a || h !== 0x68 || !level || !isLevel(level)) {
      throw new Bzip2Error(
        state.complete
          ? `expected the end, zeros or another stream behind a stream, found ${quoteBytes(header)}`
          : `expected "BZh" and a digit, found ${quoteBytes(header)}`,
      );
    }
    state.bit += 8 * header.length;
    state.maxBlock = (level - ZERO) * 100_000;
    state.streamCrc = 0;
  }

  /** Decodes the next block, or reads what ends the stream. */
  #beginBlock(): void {
    const { state } = this;
    const magic = this.#bits(24) * 2 ** 24 + this.#bits(24);
    const crc = (this.#bits(16) << 16) | this.#bits(16);
    if (magic === BLOCK_MAGIC) {
      this.#decodeBlock();
      state.statedCrc = crc;
      state.crc = -1;
      state.run = 0;
    } else if (magic === END_MAGIC) {
      if (crc !== state.streamCrc) throw new Bzip2Error("the checksum of the stream is wrong");
      state.bit = (state.bit + 7) & ~7;
      state.maxBlock = 0;
      state.complete = true;
    } else {
      const found = magic.toString(16).padStart(12, "0");
      throw new Bzip2Error(`expected a block or the end of the stream, found 0x${found}`);
    }
  }

  /** Takes up to 24 bits of the input. */
  #bits(count: number): number {
    const { state } = this;
    const value = (this.#peek(state.bit) >>> (32 - count)) & (2 ** count - 1);
    state.bit += count;
    if (state.bit > this.#endBit) throw this.#breaksOff();
    return value;
  }

  /** The 25 bits from a bit of the input on, in the upper bits of a number. */
  #peek(bit: number): number {
    const at = bit >>> 3;
    const input = this.#input;
    const bytes =
      (input[at]! << 24) | (input[at + 1]! << 16) | (input[at + 2]! << 8) | input[at + 3]!;
    return bytes << (bit & 7);
  }

  #breaksOff(): Bzip2Error {
    return new Bzip2Error(
      this.#isLast
        ? "it breaks off: expected the rest of a stream, found the end"
        : `expected a block of at most ${MAX_BLOCK_INPUT} bytes`,
    );
  }

  #decodeBlock(): void {
    const { state } = this;
    if (this.#bits(1) === 1) {
      throw new Bzip2Error(
        "expected blocks as bzip2 0.9.5 and later writes them, found older ones",
      );
    }
    const origin = this.#bits(24);
    const bytes = this.#readByteSet();
    const tableCount = this.#bits(3);
    if (tableCount < 2 || tableCount > 6) {
      throw new Bzip2Error(`expected 2 to 6 code tables in a block, found ${tableCount}`);
    }
    const selectors = this.#readSelectors(tableCount);
    const tables = Array.from({ length: tableCount }, () => this.#readTable(bytes.length + 2));
    const counts = new Uint32Array(256);
    const length = this.#readCodes(bytes, selectors, tables, counts);
    if (origin >= length) {
      throw new Bzip2Error(`expected the origin of a block below ${length}, found ${origin}`);
    }
    linkBytes(this.#block.subarray(0, length), counts);
    state.next = this.#block[origin]! >>> 8;
    state.left = length;
  }

  /** Reads which bytes occur in a block. */
  #readByteSet(): Uint8Array {
    const rows = this.#bits(16);
    const bytes: number[] = [];
    for (let row = 0; row < 16; row++) {
      if (((rows >>> (15 - row)) & 1) === 0) continue;
      const columns = this.#bits(16);
      for (let column = 0; column < 16; column++) {
        if (((columns >>> (15 - column)) & 1) !== 0) bytes.push(16 * row + column);
      }
    }
    if (bytes.length === 0) throw new Bzip2Error("expected a block with bytes, found none");
    return Uint8Array.from(bytes);
  }

  /** Reads the index of the table for each group of codes. */
  #readSelectors(tableCount: number): Uint8Array {
    const count = this.#bits(15);
    if (count === 0) throw new Bzip2Error("expected a block with groups of codes, found none");
    const selectors = new Uint8Array(Math.min(count, MAX_GROUPS)); // some writers state too many
    const order = Uint8Array.from({ length: tableCount }, (_, i) => i);
    for (let i = 0; i < count; i++) {
      let index = 0;
      while (this.#bits(1) === 1) index += 1;
      if (index >= tableCount) {
        throw new Bzip2Error(`expected a code table below ${tableCount}, found ${index}`);
      }
      const selector = order[index]!;
      order.copyWithin(1, 0, index);
      order[0] = selector;
      if (i < selectors.length) selectors[i] = selector;
    }
    return selectors;
  }

  #readTable(symbolCount: number): CodeTable {
    const lengths = new Uint8Array(symbolCount);
    let length = this.#bits(5);
    for (let symbol = 0; symbol < symbolCount; symbol++) {
      for (;;) {
        if (length < 1 || length > MAX_CODE_BITS) {
          throw new Bzip2Error(`expected codes of 1 to ${MAX_CODE_BITS} bits, found ${length}`);
        }
        if (this.#bits(1) === 0) break;
        length += this.#bits(1) === 0 ? 1 : -1;
      }
      lengths[symbol] = length;
    }
    return codeTable(lengths);
  }

  /** Decodes all codes of a block to its bytes, and counts them. Returns the length of the block. */
  #readCodes(
    bytes: Uint8Array,
    selectors: Uint8Array,
    tables: readonly CodeTable[],
    counts: Uint32Array,
  ): number {
    const input = this.#input;
    const block = this.#block;
    const { state } = this;
    const { maxBlock } = state;
    const end = bytes.length + 1;
    const front = bytes.slice(); // bytes by how lately they occurred
    let { bit } = state;
    let length = 0;
    let [run, runBits] = [0, 0];
    for (const selector of selectors) {
      const { shortest, limits, bases, symbols } = tables[selector]!;
      if (bit > this.#endBit) throw this.#breaksOff();
      for (let left = GROUP_CODES; left > 0; left--) {
        const at = bit >>> 3;
        const word =
          (input[at]! << 24) | (input[at + 1]! << 16) | (input[at + 2]! << 8) | input[at + 3]!;
        const peek = (word << (bit & 7)) >>> (32 - MAX_CODE_BITS);
        let bits = shortest;
        while (peek >>> (MAX_CODE_BITS - bits) > limits[bits]!) bits += 1;
        bit += bits;
        const symbol = symbols[(peek >>> (MAX_CODE_BITS - bits)) - bases[bits]!];
        if (symbol === undefined) throw new Bzip2Error("expected a code of the table, found none");
        if (symbol <= 1) {
          if (runBits === MAX_RUN_BITS) throw tooLong(maxBlock);
          run += 2 ** (runBits + symbol);
          runBits += 1;
          continue;
        }
        if (run > 0) {
          if (length + run > maxBlock) throw tooLong(maxBlock);
          const byte = front[0]!;
          block.fill(byte, length, length + run);
          counts[byte]! += run;
          length += run;
          [run, runBits] = [0, 0];
        }
        if (symbol === end) {
          if (bit > this.#endBit) throw this.#breaksOff();
          state.bit = bit;
          return length;
        }
        if (length === maxBlock) throw tooLong(maxBlock);
        const byte = front[symbol - 1]!;
        front.copyWithin(1, 0, symbol - 1);
        front[0] = byte;
        block[length] = byte;
        counts[byte]! += 1;
        length += 1;
      }
    }
    if (bit > this.#endBit) throw this.#breaksOff();
    throw new Bzip2Error("expected the end of a block, found more codes");
  }

  /** Gives out bytes of the block. Returns whether it got to its end, where the checksum has to match. */
  #expand(): boolean {
    const { state } = this;
    const block = this.#block;
    const output = this.#output;
    let { left, next, crc, last, run, repeat } = state;
    let { written } = this;
    while (written < output.length) {
      if (repeat > 0) {
        const end = Math.min(written + repeat, output.length);
        repeat -= end - written;
        for (; written < end; written++) {
          output[written] = last;
          crc = (crc << 8) ^ CRC_TABLE[(crc >>> 24) ^ last]!;
        }
        continue;
      }
      if (left === 0) break;
      const element = block[next]!;
      const byte = element & 0xff;
      next = element >>> 8;
      left -= 1;
      if (run === 4) {
        repeat = byte; // after four in a row stands how many more there are
        run = 0;
        continue;
      }
      run = byte === last ? run + 1 : 1;
      last = byte;
      output[written] = byte;
      written += 1;
      crc = (crc << 8) ^ CRC_TABLE[(crc >>> 24) ^ byte]!;
    }
    Object.assign(state, { left, next, crc, last, run, repeat });
    this.written = written;
    if (this.#isInBlock()) return false;
    if (~crc !== state.statedCrc) throw new Bzip2Error("the checksum of a block is wrong");
    state.streamCrc = ((state.streamCrc << 1) | (state.streamCrc >>> 31)) ^ state.statedCrc;
    return true;
  }
}

const ZERO = 0x30;

function isLevel(byte: number): boolean {
  return byte > ZERO && byte <= ZERO + 9;
}

function tooLong(maxBlock: number): Bzip2Error {
  return new Bzip2Error(`expected a block of at most ${maxBlock} bytes`);
}

function codeTable(lengths: Uint8Array): CodeTable {
  const counts = new Uint16Array(MAX_CODE_BITS + 1);
  for (const length of lengths) counts[length]! += 1;
  const limits = new Int32Array(MAX_CODE_BITS + 2).fill(-1);
  const bases = new Int32Array(MAX_CODE_BITS + 2);
  const ends = new Uint16Array(MAX_CODE_BITS + 2); // of the codes up to each length, in `symbols`
  let code = 0;
  for (let bits = 1; bits <= MAX_CODE_BITS; bits++) {
    code *= 2;
    bases[bits] = code - ends[bits - 1]!;
    code += counts[bits]!;
    limits[bits] = code - 1;
    ends[bits] = ends[bits - 1]! + counts[bits]!;
  }
  // A code that is none of these is taken for one that is too long, and has no symbol.
  limits[MAX_CODE_BITS + 1] = 2 ** MAX_CODE_BITS;
  bases[MAX_CODE_BITS + 1] = 2 ** 30;
  const symbols = new Uint16Array(lengths.length);
  const at = Uint16Array.from(ends.subarray(0, MAX_CODE_BITS));
  for (const [symbol, length] of lengths.entries()) symbols[at[length - 1]!++] = symbol;
  return { shortest: counts.findIndex((count) => count > 0), limits, bases, symbols };
}

/** Inverts the Burrows-Wheeler transform: puts above each byte the index of the one that follows it. */
function linkBytes(block: Uint32Array, counts: Uint32Array): void {
  const at = new Uint32Array(256);
  for (let byte = 1; byte < 256; byte++) at[byte] = at[byte - 1]! + counts[byte - 1]!;
  for (let i = 0; i < block.length; i++) {
    const byte = block[i]! & 0xff;
    block[at[byte]!]! |= i << 8;
    at[byte]! += 1;
  }
}

/** Checksums are CRC-32 with the highest bit first; zlib has it with the lowest first. */
const CRC_TABLE: Int32Array = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});
