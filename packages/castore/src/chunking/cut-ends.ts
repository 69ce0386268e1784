import { Chunker } from "./chunker.ts";

/**
 * Returns where chunks end in contents that begin with a chunk, as offsets. What follows the last of them is a part of a
 * chunk.
 *
 * @param isLast whether nothing follows the contents: then they end with a chunk
 * @param averageSize average length of a chunk in bytes
 */
export function cutEnds(contents: Uint8Array, isLast: boolean, averageSize: number): number[] {
  const chunker = new Chunker(averageSize);
  const ends: number[] = [];
  let at = 0;
  for (;;) {
    const length = chunker.firstCut(contents.subarray(at));
    if (length === undefined) break;
    at += length;
    ends.push(at);
  }
  if (isLast && at < contents.length) ends.push(contents.length);
  return ends;
}
