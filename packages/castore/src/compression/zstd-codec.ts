import * as zlib from "node:zlib";
import { Scratch } from "../worker/scratch.ts";
import { contentSizeOf, frameLengthOf } from "./zstd-frame.ts";

/**
 * Compresses and decompresses single zstd frames, in the calling thread. Keeps its contexts from frame to frame: to make
 * one takes longer than to compress a small file.
 */
export interface ZstdCodec {
  /**
   * Compresses bytes into one frame that states its content size.
   *
   * @param target takes the frame: of {@link compressBound} bytes, so that it fits
   * @returns length of the frame; `undefined` where it does not fit
   */
  compress(data: Uint8Array, target: Uint8Array): number | undefined;

  /**
   * Decompresses one frame, behind which nothing stands.
   *
   * @param target takes the contents: as long as they are expected to be
   * @returns whether it is a whole frame of contents of that length
   */
  decompress(frame: Uint8Array, target: Uint8Array): boolean;

  /**
   * Decompresses one frame, behind which nothing stands, of contents whose length is not known.
   *
   * @returns the contents; `undefined` where it is no whole frame, or they have `maxBytes` or more
   */
  decompressShort(frame: Uint8Array, maxBytes: number): Uint8Array | undefined;
}

/** Frames of a longer window are refused. Level 22 uses a window of 2 to the power of 27 bytes. */
const DECOMPRESS_OPTIONS: zlib.ZstdOptions = {
  params: { [zlib.constants.ZSTD_d_windowLogMax]: 27 },
};

/**
 * The part of a stream of node:zlib that does the work. It is called as the synchronous functions of node:zlib call it;
 * they make a new stream for each call.
 */
interface Handle {
  writeSync(
    flush: number,
    input: Uint8Array | null,
    inputAt: number,
    inputLength: number,
    output: Uint8Array,
    outputAt: number,
    outputLength: number,
  ): void;
  onerror: (message: string, errno: number, code: string) => void;
}

/** Memory of this thread for contents whose length is not known. */
const shortContents = new Scratch();

/** A context that is kept: a stream of node:zlib of which only the handle is used. */
class Context {
  readonly #create: () => object;
  #handle: Handle;
  /** Set by each call: bytes of the output that are left, then those of the input. */
  #left: Uint32Array;
  #hasFailed = false;

  constructor(create: () => object) {
    this.#create = create;
    ({ handle: this.#handle, left: this.#left } = this.#open());
  }

  /** Takes the whole input. Returns how many bytes it wrote; `undefined` if it failed, or did not take all of it. */
  run(input: Uint8Array, output: Uint8Array, at: number): number | undefined {
    const room = output.length - at;
    const { ZSTD_e_end } = zlib.constants;
    this.#handle.writeSync(ZSTD_e_end, input, 0, input.length, output, at, room);
    const [outputLeft, inputLeft] = this.#left;
    if (!this.#hasFailed && inputLeft === 0) return room - outputLeft!;
    this.renew();
    return undefined;
  }

  /** Begins with a new stream: one that has failed, or stands within a frame, is of no more use. */
  renew(): void {
    this.#hasFailed = false;
    ({ handle: this.#handle, left: this.#left } = this.#open());
  }

  #open(): { handle: Handle; left: Uint32Array } {
    const stream = this.#create() as { _handle?: Handle; _writeState?: Uint32Array };
    const { _handle: handle, _writeState: left } = stream;
    if (typeof handle?.writeSync !== "function" || !(left instanceof Uint32Array)) {
      throw new Error("node:zlib of this version of Node.js has no such handle");
    }
    handle.onerror = () => {
      this.#hasFailed = true;
    };
    return { handle, left };
  }
}

/** Keeps one context for each direction. */
export class KeptZstdCodec implements ZstdCodec {
  readonly #compressor: Context;
  readonly #decompressor: Context;

  /** @throws Error if this version of Node.js does not allow it */
  constructor(level: number) {
    const options = compressOptions(level);
    this.#compressor = new Context(() => new zlib.ZstdCompress(options));
    this.#decompressor = new Context(() => new zlib.ZstdDecompress(DECOMPRESS_OPTIONS));
    expectRoundTrip(this);
  }

  compress(data: Uint8Array, target: Uint8Array): number | undefined {
    const length = this.#compressor.run(data, target, 0);
    if (length === undefined || length < target.length) return length;
    this.#compressor.renew(); // full to the last byte, so there may be more of the frame
    return undefined;
  }

  decompress(frame: Uint8Array, target: Uint8Array): boolean {
    if (frameLengthOf(frame) !== frame.length) return false; // it would leave the context within a frame
    return this.#decompressor.run(frame, target, 0) === target.length;
  }

  decompressShort(frame: Uint8Array, maxBytes: number): Uint8Array | undefined {
    if (frameLengthOf(frame) !== frame.length) return undefined;
    const target = shortContents.take(maxBytes);
    const length = this.#decompressor.run(frame, target, 0);
    if (length === undefined) return undefined;
    if (length < maxBytes) return target.slice(0, length);
    this.#decompressor.renew(); // full to the last byte, so there may be more of the frame
    return undefined;
  }
}

/** Uses the public functions of node:zlib alone, which make a context for each frame. */
export class PublicZstdCodec implements ZstdCodec {
  readonly #options: zlib.ZstdOptions;

  constructor(level: number) {
    this.#options = compressOptions(level);
  }

  compress(data: Uint8Array, target: Uint8Array): number | undefined {
    const chunkSize = outputSize(target.length);
    const frame = zlib.zstdCompressSync(data, { ...this.#options, chunkSize });
    if (frame.length >= target.length) return undefined;
    target.set(frame);
    return frame.length;
  }

  decompress(frame: Uint8Array, target: Uint8Array): boolean {
    if (frameLengthOf(frame) !== frame.length) return false;
    try {
      const contents = zlib.zstdDecompressSync(frame, {
        ...DECOMPRESS_OPTIONS,
        maxOutputLength: Math.max(target.length, 1),
        chunkSize: outputSize(target.length),
      });
      if (contents.length !== target.length) return false;
      target.set(contents);
      return true;
    } catch {
      return false; // whatever is wrong with the frame
    }
  }

  decompressShort(frame: Uint8Array, maxBytes: number): Uint8Array | undefined {
    if (frameLengthOf(frame) !== frame.length) return undefined;
    try {
      const options = { ...DECOMPRESS_OPTIONS, maxOutputLength: maxBytes - 1 };
      return zlib.zstdDecompressSync(frame, options);
    } catch {
      return undefined; // whatever is wrong with the frame
    }
  }
}

const codecs = new Map<number, ZstdCodec>();

/** Returns the codec of this thread for a level of zstd, 1 to 22. */
export function zstdCodec(level = 1): ZstdCodec {
  let codec = codecs.get(level);
  if (codec === undefined) {
    codec = openCodec(level);
    codecs.set(level, codec);
  }
  return codec;
}

function openCodec(level: number): ZstdCodec {
  try {
    return new KeptZstdCodec(level);
  } catch {
    return new PublicZstdCodec(level);
  }
}

/** Throws unless a codec does what it should: another version of Node.js may have changed what it relies on. */
function expectRoundTrip(codec: ZstdCodec): void {
  const data = Buffer.from("a frame and another ".repeat(8));
  const frame = Buffer.alloc(compressBound(data.length));
  for (const sample of [data, data.subarray(3)]) {
    const length = codec.compress(sample, frame) ?? 0;
    const contents = Buffer.alloc(sample.length);
    const isSame =
      contentSizeOf(frame.subarray(0, length)) === sample.length &&
      codec.decompress(frame.subarray(0, length), contents) &&
      contents.equals(sample) &&
      zlib.zstdDecompressSync(frame.subarray(0, length)).equals(sample);
    if (!isSame) throw new Error("contexts of zstd cannot be kept");
  }
}

/** Returns how long a target of compression has to be so that every frame fits, in bytes. */
export function compressBound(length: number): number {
  return length + (length >>> 7) + 512;
}

function compressOptions(level: number): zlib.ZstdOptions {
  return { params: { [zlib.constants.ZSTD_c_compressionLevel]: level } };
}

/** Length of the buffers that output comes in, in bytes: one is enough for what has any use. */
function outputSize(length: number): number {
  return Math.max(length, zlib.constants.Z_MIN_CHUNK);
}
