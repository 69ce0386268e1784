/** The task of lanes that reads chunks of packs to places in a buffer. */
import type { B3Digest } from "../../model/digest.ts";
import type { LaneContext } from "../../worker/lane.ts";
import { Scratch } from "../../worker/scratch.ts";
import { BlobPlaces } from "../blob-places.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import { packPath } from "./pack-files.ts";
import { isWholeChunk, readPayloads } from "./read-chunks.ts";
import { indexOf, type LaneStore } from "./record-batch.ts";

/** Memory of this thread for payloads. */
const payloadMemory = new Scratch();

/** Chunks to read, and where to. */
export interface ReadPlacedTask {
  readonly store: LaneStore;
  /** A whole buffer, which is moved to the lane and back. */
  readonly target: Uint8Array<ArrayBuffer>;
  /** The chunks and their places, packed. */
  readonly blobs: Uint8Array<ArrayBuffer>;
}

/** Result of reading chunks to their places. */
export interface PlacedRead {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Positions of those that are no chunks of that length: they may be blobs. */
  readonly absent: readonly number[];
  /** Positions of those that are damaged. */
  readonly damaged: readonly number[];
}

/**
 * Looks chunks up, reads them to their places and verifies them there.
 *
 * @throws CastoreError by cause if the system refuses to read
 */
export function readPlaced(
  { store, target, blobs: packed }: ReadPlacedTask,
  { transfer }: LaneContext,
): PlacedRead {
  transfer(target.buffer);
  const blobs = new BlobPlaces(packed);
  const [found, absent] = locate(store, blobs);
  const locations = found.map(({ location }) => location);
  const packs = new Set(locations.map(({ pack }) => pack));
  const paths = new Map(Array.from(packs, (pack) => [pack, packPath(store.folder, pack)]));
  const damaged: number[] = [];
  let next = 0;
  for (const { location, payload } of readPayloads(locations, paths, payloadMemory.take)) {
    const { index, digest } = found[next++]!;
    const place = blobs.placeIn(target, index);
    if (!isWholeChunk(place, location, payload, digest)) damaged.push(index);
  }
  return { bytes: target, absent, damaged };
}

/** A chunk that is stored. */
interface FoundChunk {
  readonly index: number;
  readonly digest: B3Digest;
  readonly location: ChunkLocation;
}

/** Looks chunks up. Returns those that are stored, and the positions of the others. */
function locate(store: LaneStore, blobs: BlobPlaces): [found: FoundChunk[], absent: number[]] {
  const found: FoundChunk[] = [];
  const absent: number[] = [];
  const chunks = indexOf(store);
  using _ = chunks?.snapshot();
  for (let index = 0; index < blobs.length; index++) {
    const { digest, size } = blobs.at(index);
    const location = chunks?.findChunk(digest);
    if (location?.size === size) found.push({ index, digest, location });
    else absent.push(index);
  }
  return [found, absent];
}
