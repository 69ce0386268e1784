import { type B3Digest, type BlobService, blake3Digest, concatBytes, putBlob } from "@tvix/castore";
import { expect, it } from "vitest";
import type { BlobServiceSuiteOptions } from "./blob-service.ts";
import {
  chunksOf,
  expectAbsent,
  expectStored,
  KIB,
  MANY_CHUNKS,
  putInPieces,
  readBack,
} from "./blob-support.ts";
import { seededBytes } from "./trees.ts";

/** How writers end, well or not, and that they get along. */
export function blobWriterTests(
  current: () => BlobService,
  { create, capabilities }: BlobServiceSuiteOptions,
): void {
  /** The digests under which nothing of a blob may be read: its own and those of its chunks. */
  async function digestsOf(contents: Uint8Array): Promise<B3Digest[]> {
    if (capabilities?.keepsChunks) return [blake3Digest(contents)];
    await using reference = await create();
    const digest = await putBlob(reference, contents.slice());
    const chunks = (await chunksOf(reference, digest))!;
    return [digest, ...chunks.map((chunk) => chunk.digest)];
  }

  it("takes pieces that are empty", async () => {
    await using writer = current().openWriter();
    for (const piece of ["", "con", "", "tents", ""]) await writer.write(Buffer.from(piece));
    expect((await writer.close()).equals(blake3Digest(Buffer.from("contents")))).toBe(true);
  });

  it("keeps nothing of the pieces that it was lent, of whatever length", async () => {
    for (const [i, step] of [10, 40_000, 70_000, 300_000, KIB * KIB].entries()) {
      const contents = MANY_CHUNKS.subarray(i, Math.min(MANY_CHUNKS.length, step * 100));
      const lent = Buffer.alloc(step); // what Node reads into, which slice() does not copy
      await using writer = current().openWriter();
      for (let at = 0; at < contents.length; at += step) {
        const piece = contents.subarray(at, at + step);
        lent.set(piece);
        await writer.write(lent.subarray(0, piece.length));
        lent.fill(0xff);
      }
      expect((await writer.close()).equals(blake3Digest(contents))).toBe(true);
      await expectStored(current(), contents);
    }
  });

  it("gives the same digest when a writer is closed twice", async () => {
    await using writer = current().openWriter();
    await writer.write(Buffer.from("contents"));
    const [first, second] = await Promise.all([writer.close(), writer.close()]);
    expect(second.equals(first)).toBe(true);
    expect((await writer.close()).equals(first)).toBe(true);
  });

  it("takes nothing more once a writer is closed", async () => {
    await using writer = current().openWriter();
    await writer.close();
    await expect(writer.write(Uint8Array.of(1))).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });

  it("takes nothing more once a writer is disposed of", async () => {
    const writer = current().openWriter();
    await writer.write(Uint8Array.of(1));
    await writer[Symbol.asyncDispose]();
    const refused = { code: "invalid_argument" };
    await expect(writer.write(Uint8Array.of(2))).rejects.toMatchObject(refused);
    await expect(writer.close()).rejects.toMatchObject(refused);
    await expectAbsent(current(), blake3Digest(Uint8Array.of(1)));
  });

  it.each([
    ["no bytes", new Uint8Array(0)],
    ["one chunk", seededBytes("dropped", 1000)],
    ["many chunks", MANY_CHUNKS],
  ])("leaves nothing of a blob of %s whose writer was dropped", async (_, contents) => {
    {
      await using writer = current().openWriter();
      await writer.write(contents.slice());
    }
    for (const digest of await digestsOf(contents)) await expectAbsent(current(), digest);
    await putBlob(current(), contents.slice());
    await expectStored(current(), contents);
  });

  it("rejects with the reason when it is cancelled before", async () => {
    const digest = await putBlob(current(), Buffer.from("contents"));
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(current().has(digest, { signal })).rejects.toBe(reason);
    await expect(current().open(digest, { signal })).rejects.toBe(reason);
    await expect(readBack(current(), digest, { signal })).rejects.toBe(reason);
    const writing = async () => {
      await using writer = current().openWriter({ signal });
      await writer.write(Uint8Array.of(1));
      await writer.close();
    };
    await expect(writing()).rejects.toBe(reason);
    await expectAbsent(current(), blake3Digest(Uint8Array.of(1)));
  });

  it("leaves nothing of a blob whose writer was cancelled", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    await using writer = current().openWriter({ signal: controller.signal });
    await writer.write(MANY_CHUNKS.slice());
    controller.abort(reason);
    await expect(writer.write(Uint8Array.of(1))).rejects.toBe(reason);
    await expect(writer.close()).rejects.toBe(reason);
    for (const digest of await digestsOf(MANY_CHUNKS)) await expectAbsent(current(), digest);
  });

  it("stores a blob whole or not at all when it is cancelled while it is closed", async () => {
    const digest = blake3Digest(MANY_CHUNKS);
    const controller = new AbortController();
    const reason = new Error("enough");
    await using writer = current().openWriter({ signal: controller.signal });
    await writer.write(MANY_CHUNKS.slice());
    const closing = writer.close().catch((error) => error);
    controller.abort(reason);
    // Either may be first; and a remote service may have stored what nobody waits for any more.
    expect([reason, digest]).toContainEqual(await closing);
    if (await current().has(digest)) await expectStored(current(), MANY_CHUNKS);
    await putBlob(current(), MANY_CHUNKS.slice());
    await expectStored(current(), MANY_CHUNKS);
  });

  it("takes the same blob from many writers at the same time", async () => {
    const contents = MANY_CHUNKS.subarray(0, 700 * KIB);
    const digests = await Promise.all(
      Array.from({ length: 8 }, (_, i) => putInPieces(current(), contents, (i + 1) * 90_000)),
    );
    for (const digest of digests) expect(digest.equals(blake3Digest(contents))).toBe(true);
    await expectStored(current(), contents);
  });

  it("stores a blob while other writers of the same are dropped", async () => {
    const contents = MANY_CHUNKS.subarray(0, 700 * KIB);
    const drop = async () => {
      await using writer = current().openWriter();
      await writer.write(contents.slice());
    };
    await Promise.all([drop(), putBlob(current(), contents.slice()), drop()]);
    await expectStored(current(), contents);
  });

  it("takes and gives many blobs at the same time", async () => {
    const blobs = Array.from({ length: 64 }, (_, i) =>
      MANY_CHUNKS.subarray(i * 1000, i * 1000 + i * i * 70),
    );
    await Promise.all(blobs.map((blob) => putBlob(current(), blob.slice())));
    await Promise.all(blobs.map((blob) => expectStored(current(), blob)));
  });

  it("gives a blob while others are written", async () => {
    await putBlob(current(), MANY_CHUNKS.slice());
    const others = Array.from({ length: 4 }, (_, i) => new Uint8Array(700 * KIB).fill(i));
    await Promise.all([
      ...others.map((other) => putBlob(current(), other.slice())),
      expectStored(current(), MANY_CHUNKS),
    ]);
    for (const other of others) await expectStored(current(), other);
  });

  it("keeps apart blobs that share most of their chunks", async () => {
    const other = concatBytes([MANY_CHUNKS, Uint8Array.of(1)]);
    await Promise.all([putBlob(current(), MANY_CHUNKS.slice()), putBlob(current(), other.slice())]);
    await expectStored(current(), MANY_CHUNKS);
    await expectStored(current(), other);
  });

  it("stores a blob that is a chunk of another one", async () => {
    const digest = await putBlob(current(), MANY_CHUNKS.slice());
    const chunk = MANY_CHUNKS.subarray(0, (await chunksOf(current(), digest))![0]!.size);
    await putBlob(current(), chunk.slice());
    await expectStored(current(), chunk);
    await expectStored(current(), MANY_CHUNKS);
  });
}
