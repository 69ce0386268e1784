import { type BlobService, blake3Digest, putBlob } from "@tvix/castore";
import { describe, it } from "vitest";
import { expectAbsent, expectStored, MANY_CHUNKS } from "./blob-support.ts";

/** That two services on one store see, and do not disturb, each other. */
export function sharedBlobTests(
  name: string,
  createPair: () => Promise<readonly [BlobService, BlobService]>,
): void {
  describe(`${name} shares its store`, () => {
    it("reads what another one put before it was closed", async () => {
      const [first, second] = await createPair();
      await using reader = second;
      {
        await using writer = first;
        await putBlob(writer, MANY_CHUNKS.slice());
        await expectStored(reader, MANY_CHUNKS);
      }
      await expectStored(reader, MANY_CHUNKS);
    });

    it("takes the same blobs as another one at the same time", async () => {
      const [first, second] = await createPair();
      await using other = second;
      await using one = first;
      const blobs = Array.from({ length: 12 }, (_, i) => MANY_CHUNKS.subarray(0, i * 99_000));
      await Promise.all(
        [one, other].flatMap((service) => blobs.map((blob) => putBlob(service, blob.slice()))),
      );
      for (const service of [one, other]) {
        for (const blob of blobs) await expectStored(service, blob);
      }
    });

    it("does not see a blob whose writer was dropped by another one", async () => {
      const [first, second] = await createPair();
      await using other = second;
      await using one = first;
      {
        await using writer = one.openWriter();
        await writer.write(MANY_CHUNKS.slice());
      }
      await expectAbsent(other, blake3Digest(MANY_CHUNKS));
      await putBlob(other, MANY_CHUNKS.slice());
      await expectStored(one, MANY_CHUNKS);
    });
  });
}
