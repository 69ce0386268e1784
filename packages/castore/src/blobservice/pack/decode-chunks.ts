/** The task of lanes that decodes chunks of packs into a slab. */
import { Scratch } from "../../worker/scratch.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { decodeInto } from "./codec.ts";
import { readPayloads } from "./read-chunks.ts";

/** Memory of this thread for payloads. */
const payloadMemory = new Scratch();

/** Chunks to decode. */
export interface DecodeTask {
  /** Where they are, packs by number. */
  readonly locations: readonly ChunkLocation[];
  /** The path of each pack that occurs. */
  readonly paths: ReadonlyMap<number, string>;
  /** Takes the contents, one after the other. They fit. */
  readonly slab: SharedArrayBuffer;
}

/**
 * Decodes chunks. Their lengths are verified, their digests are not.
 *
 * @returns whether all could be
 * @throws CastoreError by cause if the system refuses to read
 */
export function decodeChunks({ locations, paths, slab }: DecodeTask): boolean {
  let at = 0;
  for (const { location, payload } of readPayloads(locations, paths, payloadMemory.take)) {
    const target = new Uint8Array(slab, at, location.size);
    if (payload.length < location.storedSize) return false;
    if (!decodeInto(target, location.codec, payload)) return false;
    at += location.size;
  }
  return true;
}
