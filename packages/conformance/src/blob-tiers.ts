import { type BlobService, blake3Digest, MemoryBlobService, putBlob } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { KIB, MANY_CHUNKS, readBack } from "./blob-support.ts";
import type { Faults } from "./fault-plan.ts";
import { FaultyBlobService } from "./faulty-blob-service.ts";
import { FAR_FAULTS, resultOrFailure, type Tiers, withFaultAnywhere } from "./tier-faults.ts";

/** What {@link blobTiersSuite} runs over. */
export interface BlobTiersSuiteOptions {
  /** Opens a service of two halves that writes to both, and disposes of neither. */
  open: (halves: { near: BlobService; far: BlobService }) => Promise<BlobService>;
  /** Opens a client of a server of a blob service, which is disposed of with it. */
  connect: (served: BlobService) => Promise<BlobService>;
}

const DIGEST = blake3Digest(MANY_CHUNKS);
/** Longer than what is read ahead. */
const LONG = new Uint8Array(Buffer.alloc(6_000_000, MANY_CHUNKS));
const SMALL = [MANY_CHUNKS.subarray(0, 300), MANY_CHUNKS.subarray(7, 40_000)];

/** Something that is read, as a list of what came, and what is right. */
type Reading = (service: BlobService) => Promise<readonly (Uint8Array | undefined)[]>;

const READINGS: readonly (readonly [string, Reading, readonly Uint8Array[]])[] = [
  ["a blob", async (service) => [await readBack(service, DIGEST)], [MANY_CHUNKS]],
  ["a long blob", async (service) => [await readBack(service, blake3Digest(LONG))], [LONG]],
  [
    "a part of a blob",
    async (service) => [await readBack(service, DIGEST, { offset: 400 * KIB, length: 300 * KIB })],
    [MANY_CHUNKS.subarray(400 * KIB, 700 * KIB)],
  ],
  [
    "parts of an open blob",
    async (service) => {
      await using reader = await service.open(DIGEST);
      return [await reader?.read(1000, 500_000), await reader?.read(900_000, 100)];
    },
    [MANY_CHUNKS.subarray(1000, 501_000), MANY_CHUNKS.subarray(900_000, 900_100)],
  ],
  [
    "a batch of blobs",
    (service) =>
      service.readMany(SMALL.map((blob) => ({ digest: blake3Digest(blob), size: blob.length }))),
    SMALL,
  ],
  [
    "a blob by several readers",
    (service) => Promise.all([1, 2, 3].map(() => readBack(service, DIGEST))),
    [MANY_CHUNKS, MANY_CHUNKS, MANY_CHUNKS],
  ],
];

/**
 * Registers tests of a blob service of two halves whose far half is the client of a server at which something goes
 * wrong: what is read is right, or reading fails, and nothing is stored in part or as something else.
 */
export function blobTiersSuite(name: string, { open, connect }: BlobTiersSuiteOptions): void {
  async function openTiers(blobs: readonly Uint8Array[], faults: Faults) {
    const [near, stored] = [new MemoryBlobService(), new MemoryBlobService()];
    for (const blob of blobs) await putBlob(stored, blob.slice());
    const faulty = new FaultyBlobService(stored, faults, 1);
    const client = await connect(faulty);
    const service = await open({ near, far: client });
    return {
      service,
      near,
      stored,
      far: faulty,
      async [Symbol.asyncDispose]() {
        await service[Symbol.asyncDispose]();
        await client[Symbol.asyncDispose]();
      },
    } satisfies Tiers<BlobService>;
  }

  /** Expects that blobs are each there, right, or absent in every way. */
  async function expectWholeOrAbsent(service: BlobService, blobs: readonly Uint8Array[]) {
    for (const blob of blobs) {
      const digest = blake3Digest(blob);
      const isThere = await service.has(digest); // asked first, as more of it may be stored meanwhile
      const found = await readBack(service, digest);
      if (isThere) expect(found).toBeDefined();
      if (found !== undefined) expect(Buffer.compare(found, blob)).toBe(0);
    }
  }

  describe(`${name} with a far half that goes wrong once`, () => {
    describe.each(FAR_FAULTS)("and %s", (_, faults, codes) => {
      it.each(READINGS)("gives %s right, or fails", async (_, read, expected) => {
        const expectRight = (found: readonly (Uint8Array | undefined)[], isAbsent = false) => {
          expect(found.length).toBe(expected.length);
          for (const [i, data] of found.entries()) {
            if (data === undefined) expect(isAbsent).toBe(true);
            else expect(Buffer.compare(data, expected[i]!)).toBe(0);
          }
        };
        const count = await withFaultAnywhere(
          (faults) => openTiers([MANY_CHUNKS, LONG, ...SMALL], faults),
          faults,
          async ({ service, near, far }) => {
            const found = await resultOrFailure(() => read(service), codes);
            // What is damaged counts as absent, where it did not fail.
            if (found !== "failed") expectRight(found, far.faults > 0);
            else expect(far.faults).toBe(1);
            far.heal();
            expectRight(await read(service));
            await expectWholeOrAbsent(near, [MANY_CHUNKS, LONG, ...SMALL]);
          },
        );
        expect(count).toBeGreaterThan(0);
      });
    });

    it.each([
      ["a blob", (service: BlobService) => putBlob(service, MANY_CHUNKS.slice()), [MANY_CHUNKS]],
      ["a batch of blobs", (service: BlobService) => service.putMany(SMALL), SMALL],
    ] as const)("stores %s in both halves, or fails", async (_, put, blobs) => {
      const count = await withFaultAnywhere(
        (faults) => openTiers([], faults),
        { fail: 1 },
        async ({ service, near, stored, far }) => {
          const outcome = await resultOrFailure<unknown>(() => put(service), ["unavailable"]);
          if (outcome === "failed") expect(far.faults).toBe(1);
          far.heal();
          for (const each of [service, near, stored]) await expectWholeOrAbsent(each, blobs);
          await put(service);
          for (const blob of blobs) {
            for (const each of [service, stored]) {
              const found = (await readBack(each, blake3Digest(blob)))!;
              expect(Buffer.compare(found, blob)).toBe(0);
            }
          }
        },
      );
      expect(count).toBeGreaterThan(0);
    });
  });
}
