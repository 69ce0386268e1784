import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress, createGunzip, createZstdDecompress } from "node:zlib";
import { CastoreError } from "./errors.ts";
import type { AbortOptions } from "./options.ts";

/** What decodes each format, as a stream of Node.js. Libraries are loaded when they are needed. */
const DECODERS = {
  br: async () => createBrotliDecompress(),
  bzip2: async () => {
    const { default: unbzip2 } = await import("unbzip2-stream");
    return unbzip2() as unknown as Transform; // an older kind of stream, with the same methods
  },
  gzip: async () => createGunzip(),
  xz: async () => {
    const { createUnxz } = await import("node-liblzma");
    return createUnxz();
  },
  zstd: async () => createZstdDecompress(),
} satisfies Record<string, () => Promise<Transform>>;

/** A format that {@link decompress} can read. */
export type Compression = keyof typeof DECODERS;

/** Every {@link Compression}. */
export const COMPRESSIONS: readonly Compression[] = Object.keys(DECODERS) as Compression[];

/**
 * Decompresses a stream, which may consist of several compressed ones after one another, as far as it is
 * read. The pieces belong to whoever iterates. Ending early releases what it holds.
 *
 * Iterating throws CastoreError `data_loss` for what is not in that format or breaks off; whatever the
 * stream throws; `signal.reason` when cancelled.
 */
export async function* decompress(
  stream: AsyncIterable<Uint8Array>,
  compression: Compression,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  options?.signal?.throwIfAborted();
  const decoder = await DECODERS[compression]();
  let failure: { readonly error: unknown } | undefined;
  const source = async function* () {
    try {
      yield* stream;
    } catch (error) {
      failure = { error };
      throw error;
    }
  };
  const fed = pipeline(source, decoder, options?.signal ? { signal: options.signal } : {});
  fed.catch(() => undefined); // the decoder fails with it
  try {
    yield* decoder;
    await fed;
  } catch (error) {
    options?.signal?.throwIfAborted();
    if (failure !== undefined) throw failure.error;
    const { message } = error as Error;
    const text = `Cannot decompress ${compression}: ${message}`;
    throw new CastoreError("data_loss", text, { cause: error });
  }
}
