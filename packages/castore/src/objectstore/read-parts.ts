import { CastoreError } from "../model/errors.ts";
import type { ObjectContents } from "./object-store.ts";

/** How many bytes of an object are requested, or sent, in one part. */
export const PART_BYTES: number = 8 * 1024 * 1024;

/** Bytes from the middle of an object. */
export interface ObjectPart {
  readonly data: Uint8Array;
  /** The version of the object that they are from, as in `ObjectHead`. */
  readonly version: string | undefined;
}

/**
 * Reads an object part by part, each of which can be repeated by itself. An answer is read at once, so that a slow
 * reader keeps no connection.
 *
 * @param name address of the object, for messages
 * @param range.start first byte
 * @param range.end byte after the last, which may be behind the end of the object
 * @param get requests up to {@link PART_BYTES}, fewer at the end of the object: `undefined` if there is
 *   no object, or no longer of this version
 * @returns `undefined` if there is no object
 */
export async function readParts(
  name: string,
  { start, end }: { readonly start: number; readonly end: number },
  get: (start: number, end: number, version?: string) => Promise<ObjectPart | undefined>,
): Promise<ObjectContents | undefined> {
  const endOfPart = (at: number) => Math.min(end, at + PART_BYTES);
  const first = await get(start, endOfPart(start));
  if (first === undefined) return undefined;
  const { version } = first;
  async function* pieces(): AsyncGenerator<Uint8Array> {
    let part: ObjectPart = first!;
    for (let at = start; ; ) {
      if (part.data.length > 0) yield part.data;
      at += part.data.length;
      if (part.data.length < PART_BYTES || at === end) return;
      const next = await get(at, endOfPart(at), version);
      if (next === undefined) {
        throw new CastoreError("aborted", `Cannot read "${name}" to its end: it was replaced`);
      }
      part = next;
    }
  }
  return Object.assign(pieces(), { version });
}

/** Returns contents that are in memory. */
export function contentsOf(data: Uint8Array, version: string | undefined): ObjectContents {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    if (data.length > 0) yield data;
  }
  return Object.assign(pieces(), { version });
}
