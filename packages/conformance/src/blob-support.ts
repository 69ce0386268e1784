import {
  type B3Digest,
  type BlobService,
  blake3Digest,
  type ChunkMeta,
  collectBytes,
  type ReadOptions,
} from "@tvix/castore";
import { expect } from "vitest";
import { seededBytes } from "./trees.ts";

export const KIB = 1024;

export const EMPTY: Uint8Array = new Uint8Array(0);

/** A blob of eleven chunks. Nobody changes it. */
export const LARGE: Uint8Array = seededBytes("big", 3 * KIB * KIB);

/** A blob of six chunks, the beginning of {@link LARGE}. */
export const MANY_CHUNKS: Uint8Array = LARGE.subarray(0, 1_200_000);

/** Writes a blob in pieces of at most `step` bytes. */
export async function putInPieces(
  service: BlobService,
  contents: Uint8Array,
  step: number,
): Promise<B3Digest> {
  await using writer = service.openWriter();
  for (let at = 0; at < contents.length; at += step) {
    await writer.write(contents.slice(at, at + step));
  }
  return await writer.close();
}

/** Reads a blob or a range of it as a whole; `undefined` if there is none. */
export async function readBack(
  service: BlobService,
  digest: B3Digest,
  options?: ReadOptions,
): Promise<Uint8Array | undefined> {
  const stream = await service.read(digest, options);
  return stream && (await collectBytes(stream));
}

/** How a blob is cut; `undefined` if there is none. */
export async function chunksOf(
  service: BlobService,
  digest: B3Digest,
): Promise<readonly ChunkMeta[] | undefined> {
  await using reader = await service.open(digest);
  return reader && [...reader.chunks];
}

/** Expects that nothing of a blob, or chunk, can be seen in any way. */
export async function expectAbsent(service: BlobService, digest: B3Digest): Promise<void> {
  expect(await service.has(digest)).toBe(false);
  expect(await service.open(digest)).toBeUndefined();
  expect(await service.statMany([digest])).toEqual([undefined]);
  expect(await service.read(digest)).toBeUndefined();
}

/** Expects that a blob is there and reads back the same. */
export async function expectStored(service: BlobService, contents: Uint8Array): Promise<void> {
  const found = await readBack(service, blake3Digest(contents));
  expect(found !== undefined && Buffer.compare(found, contents) === 0).toBe(true);
}
