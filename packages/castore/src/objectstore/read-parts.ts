import { CastoreError } from "../model/errors.ts";

/** How many bytes are got, or sent, in one part. */
export const PART_BYTES: number = 8 * 1024 * 1024;

/** Bytes from the middle of an object. */
export interface ObjectPart {
  readonly data: Uint8Array;
  /** Which of the objects that had this key one after the other it is from. */
  readonly version?: string | undefined;
}

/**
 * The contents of an object, asked for part by part, each of which is tried again by itself. An answer is
 * read at once, so that a slow reader keeps no connection.
 *
 * @param name address of the object, for messages
 * @param range.start first byte
 * @param range.end byte after the last, which may be behind the end
 * @param get gets up to {@link PART_BYTES}, fewer at the end of the object: `undefined` if there is
 *   no object, or not of this version any more
 * @returns `undefined` if there is no object
 */
export async function readParts(
  name: string,
  { start, end }: { readonly start: number; readonly end: number },
  get: (start: number, end: number, version?: string) => Promise<ObjectPart | undefined>,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const endOfPart = (at: number) => Math.min(end, at + PART_BYTES);
  const first = await get(start, endOfPart(start));
  if (first === undefined) return undefined;
  return (async function* () {
    let part: ObjectPart = first;
    for (let at = start; ; ) {
      if (part.data.length > 0) yield part.data;
      at += part.data.length;
      if (part.data.length < PART_BYTES || at === end) return;
      const next = await get(at, endOfPart(at), first.version);
      if (next === undefined) {
        throw new CastoreError("aborted", `Cannot go on reading "${name}": it was replaced`);
      }
      part = next;
    }
  })();
}
